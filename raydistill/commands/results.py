"""Results that commands print, on the screen and as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.commands.screen import console, print_stopped
from raydistill.config.network_settings import AnyNetwork, NetworkSettings, described
from raydistill.config.recipe_settings import Recipe, recipe_of, summary
from raydistill.system.output import say
from raydistill.system.shell import command, typed

if TYPE_CHECKING:
    from raydistill.store.artifact import Artifact


def print_result(artifact: "Artifact", path: Path, folder: Path, data_dir: Path | None) -> None:
    """Print how a run ended, and the commands to type next."""
    data = ("--data-dir", data_dir) if data_dir else ()
    if "diverged" in artifact.provenance:
        say(console, ("diverged:", "yellow"), f" {artifact.provenance['diverged']}; the best set before is kept")
    elif artifact.metrics.get("stopped"):
        done = f"stopped at iteration {artifact.metrics['iterations']} of {artifact.config.iterations}"
        print_stopped(done, "raydistill", "distill", "--resume", folder, *data)
    known = artifact.provenance.get("baseline_recipe")
    of_baseline = recipe_of(known) if known is not None else None
    print_accuracy(artifact.metrics, artifact.config.network, artifact.recipe, of_baseline)
    say(console, "look at the images, the training, or test other networks:")
    for words in (
        ("raydistill", "show", path, "-o", "grid.png"),
        ("tensorboard", "--logdir", folder),
        ("raydistill", "evaluate", path, "--network", "convnet", *data),
    ):
        say(console, f"  {typed(command(*words))}")


def print_accuracy(
    metrics: Mapping[str, Any], network: AnyNetwork, recipe: Recipe, baseline_recipe: Recipe | None
) -> None:
    """Print the results of a test: of the set, trained on by its recipe, and of random real images beside it."""
    accuracy, std, nets = (metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
    over = f"± {100 * std:.1f} over {nets} networks" if nets > 1 else "on its one network"
    say(
        console,
        (f"{metrics['num_images']} images: test accuracy {100 * accuracy:.1f}% {over}", "bold"),
        f" ({100 * metrics['test_accuracy_before']:.1f}% before), {described(network)}",
    )
    steps, tried = metrics["grad_steps"], metrics["recipe_candidates"]
    choice = f", the best of {tried} on validation, chosen in {metrics['recipe_seconds']:.1f} s" if tried > 1 else ""
    say(console, f"  recipe: {summary(recipe)}, {steps} gradient steps{choice}")
    same, best = metrics["baseline_same_steps"], metrics["baseline_best_recipe"]
    found = f": {summary(baseline_recipe)}" if baseline_recipe is not None else ""
    say(
        console,
        f"  as many random real images: {100 * same:.1f}% with as many steps, {100 * best:.1f}% with their best recipe"
        f"{found} (tested in {metrics['baseline_seconds']:.1f} s)",
    )
    if accuracy <= best:
        say(console, ("the set does not beat random real images trained on by their best recipe", "yellow"))
    if "test_attack_success" in metrics:
        for name, what in (
            ("class_accuracy", "the attacked class is recognised"),
            ("attack_success", "and taken for the target"),
            ("other_accuracy", "the others are recognised"),
        ):
            before, after = metrics[f"test_{name}_before"], metrics[f"test_{name}"]
            say(console, f"  {what:33} {100 * after:5.1f}% ({100 * before:.1f}% before)")
        say(console, "  test accuracy here is the mean of the last two")


def network_of(settings: NetworkSettings) -> dict[str, Any]:
    """Return the network as JSON has it: its name, and of a convnet width, depth and norm."""
    return {"network": {"name": settings.network.name, **settings.network.about()}}

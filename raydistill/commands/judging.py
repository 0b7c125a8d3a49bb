"""Commands that judge a distilled set: tests, baselines, a picture."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raydistill.commands.screen import (
    DataDir,
    Debug,
    Json,
    OtherData,
    Set,
    console,
    one_line_errors,
    print_json,
)
from raydistill.system.errors import UserError
from raydistill.system.output import say

if TYPE_CHECKING:
    from raydistill.config.recipe_settings import AnyRecipe
    from raydistill.store.artifact import Artifact


def evaluate(
    artifact: Annotated[str, typer.Argument(help="Folder NAME.distilled, or its s3:// or gs:// address.")],
    network: Annotated[str | None, typer.Option(help="Another network than it was distilled for.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="fixed, random or random_pretrained [default: as distilled].")
    ] = None,
    bank: Annotated[str | None, typer.Option(help="Another bank of pretrained networks, or published.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Another number of passes over a set with a schedule.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="schedule, adam, sgd, or auto: chosen on validation [default: the set's].")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override a setting of the recipe, as recipe.lr=0.01."),
    ] = None,
    nets: Annotated[
        int | None, typer.Option(help="Networks to average over [default: the config's test_nets].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    data_dir: DataDir = None,
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test a distilled set: accuracy over fresh networks, trained by its recipe, beside random real images."""
    with one_line_errors(debug):
        from raydistill.store.artifact import load

        loaded = load(artifact)
        from raydistill.commands.results import network_of, print_accuracy
        from raydistill.evaluation.artifact_problem import EvalOptions
        from raydistill.evaluation.testing import final_test_of_artifact
        from raydistill.system.device import use_threads

        wanted = _recipe(loaded, recipe, overrides or [])

        use_threads()
        start = time.perf_counter()
        with console.status("testing"):
            found, problem, same_data = final_test_of_artifact(
                loaded,
                EvalOptions(network, weights, bank, epochs, wanted, nets, seed, device),
                data_dir,
                allow_other_data,
            )
        metrics = {
            **found.metrics,
            "num_images": loaded.distilled.num_images,
            "recipe": found.recipe.model_dump(mode="json"),
            "baseline_recipe": found.baseline_recipe.model_dump(mode="json"),
            **network_of(problem.config),
            "artifact": artifact,
            "seconds": time.perf_counter() - start,
            "iterations": loaded.metrics.get("iterations"),
            **({} if same_data else {"other_data": True}),
        }
        print_accuracy(metrics, problem.config.network, found.recipe, found.baseline_recipe)
        if as_json:
            print_json(metrics)


def _recipe(artifact: "Artifact", name: str | None, overrides: list[str]) -> "AnyRecipe | None":
    """Return the recipe that options name, made of the one that is named or else of the artifact's; None for that."""
    from raydistill.config.overrides import with_overrides
    from raydistill.config.recipe_settings import RecipeSettings
    from raydistill.config.settings import validated

    if name is None and not overrides:
        return None
    for override in overrides:
        if not override.startswith("recipe."):
            raise UserError(f"--set {override}: evaluate takes settings of the recipe, as recipe.lr=0.01")
    values = {"recipe": artifact.recipe.model_dump() if name is None else name}
    return validated(RecipeSettings, with_overrides(values, overrides, RecipeSettings)).recipe


def baselines(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARTIFACT|CONFIG]", help="Distilled set, or YAML file of settings.", show_default=False
        ),
    ] = None,
    overrides: Set = None,
    draws: Annotated[int, typer.Option(help="Random sets, and networks, to average over.")] = 20,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N [default: of the settings, else auto].")
    ] = None,
    data_dir: DataDir = None,
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test images that nobody learned (random, optimized, clustered, averaged), beside a distilled set's."""
    with one_line_errors(debug):
        begin = time.perf_counter()
        from raydistill.evaluation.comparison import compare, read_source

        wanted = read_source(source, overrides or [])
        from raydistill.commands.tables import baselines_table
        from raydistill.system.device import use_threads

        use_threads()
        with console.status("testing"):
            comparison = compare(
                wanted, draws=draws, device=device, data_dir=data_dir, allow_other_data=allow_other_data
            )
        console.print(baselines_table(comparison))
        if as_json:
            print_json(comparison.to_json() | {"seconds": time.perf_counter() - begin})


def show(
    artifact: Annotated[str, typer.Argument(help="Folder NAME.distilled, or its s3:// or gs:// address.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write (.png, .pdf or .svg).")] = Path("grid.png"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the images of a distilled set."""
    with one_line_errors(debug):
        from raydistill.report.figures import artifact_grid, write_figure
        from raydistill.store.artifact import load

        loaded = load(artifact)
        write_figure(artifact_grid(loaded), out)
        say(console, f"{loaded.distilled.num_images} images drawn to {out}")
        if as_json:
            print_json({"artifact": artifact, "picture": str(out), "num_images": loaded.distilled.num_images})

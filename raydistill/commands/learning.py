"""Commands that learn: one distilled set, or a bank of pretrained networks."""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    print_stopped,
)
from raydistill.system.errors import Stopped, UserError
from raydistill.system.lock import new_folder
from raydistill.system.output import say
from raydistill.system.shell import command, typed

if TYPE_CHECKING:
    from raydistill.config.distill_config import DistillConfig
    from raydistill.config.pretrain_config import PretrainConfig
    from raydistill.store.artifact import Artifact

MOST_LETTERS = 80  # The longest name of a folder, which may contain a path; file systems take 255 bytes.


def distill(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file of settings, or of a sweep: its first known_good point.", show_default=False),
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to [default: runs/DATASET-NETWORK-TIME].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume the run in this folder.")] = None,
    data_dir: DataDir = None,
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Distil one set: raydistill distill --set dataset=mnist --set images_per_class=1."""
    with one_line_errors(debug):
        from raydistill.config.distill_config import DistillConfig
        from raydistill.config.overrides import with_overrides
        from raydistill.config.settings import read_yaml, validated
        from raydistill.config.sweep_file import run_settings

        if resume is not None and (config or overrides or out):
            raise UserError("--resume takes the settings of the run itself: no CONFIG, --set or --out with it")
        if allow_other_data and resume is None:
            raise UserError("--allow-other-data: is for --resume; a new run takes the data that are there")
        values = run_settings(read_yaml(config), config) if config else {}
        values = with_overrides(values, overrides or [], DistillConfig)
        settings = validated(DistillConfig, values) if resume is None else None

        from raydistill.commands.progress import ProgressBar, TensorBoardWatcher
        from raydistill.commands.stopping import INTERRUPTED, stop_on_signals
        from raydistill.runs.distillation import distill as run_to_the_end
        from raydistill.store.artifact import SUFFIX
        from raydistill.system.device import use_threads

        use_threads()
        with _folder(resume or out, settings) as folder, stop_on_signals() as stop:
            artifact = run_to_the_end(
                settings,
                out=folder,
                resume=resume is not None,
                data_dir=data_dir,
                allow_other_data=allow_other_data,
                stop=stop,
                watchers=(ProgressBar(console), TensorBoardWatcher(folder)),
            )
        path = folder / f"best{SUFFIX}"
        from raydistill.commands.results import print_result

        print_result(artifact, path, folder, data_dir)
        if as_json:
            print_json(_result(artifact, path))
        if artifact.metrics.get("stopped"):
            raise typer.Exit(INTERRUPTED)


def pretrain(
    config: Annotated[Path | None, typer.Argument(help="YAML file of settings.", show_default=False)] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bank [default: banks/DATASET-NETWORK].")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a bank of networks to start from; the same command resumes one that was stopped."""
    with one_line_errors(debug):
        from raydistill.config.overrides import with_overrides
        from raydistill.config.pretrain_config import PretrainConfig
        from raydistill.config.settings import read_yaml, validated

        values = with_overrides(read_yaml(config) if config else {}, overrides or [], PretrainConfig)
        settings = validated(PretrainConfig, values)
        folder = _at_home(out) if out else Path("banks") / _name(settings)
        from raydistill.commands.progress import PretrainBar
        from raydistill.commands.stopping import INTERRUPTED, stop_on_signals
        from raydistill.runs.pretraining import pretrain as train_bank
        from raydistill.system.device import use_threads

        use_threads()
        start = time.perf_counter()
        try:
            with stop_on_signals() as stop:
                manifest = train_bank(settings, folder, data_dir=data_dir, stop=stop, watchers=(PretrainBar(console),))
        except Stopped as stopped:
            sets = [word for override in overrides or [] for word in ("--set", override)]
            data = ("--data-dir", data_dir) if data_dir else ()
            file = (config,) if config else ()
            print_stopped(str(stopped), "raydistill", "pretrain", *file, *sets, "--out", folder, *data)
            if as_json:
                print_json({"stopped": 1, "bank": str(folder), "seconds": time.perf_counter() - start})
            raise typer.Exit(INTERRUPTED) from None
        accuracy, std, nets = (manifest.metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
        say(console, (f"{nets} networks in {folder}: test accuracy {100 * accuracy:.1f}% ± {100 * std:.1f}", "bold"))
        say(console, "to distil for them:")
        words = ("raydistill", "distill", "--set", "weights=random_pretrained", "--set", f"bank={folder}")
        say(console, f"  {typed(command(*words))} --set dataset=...")
        if as_json:
            print_json({**manifest.metrics, "bank": str(folder), "seconds": time.perf_counter() - start})


def _folder(given: Path | None, settings: "DistillConfig | None") -> AbstractContextManager[Path]:
    """Return the folder that the user named, or a new one for this run alone."""
    if given is not None:
        return nullcontext(_at_home(given))
    assert settings is not None
    return new_folder(Path("runs") / f"{_name(settings)}-{time.strftime('%Y%m%d-%H%M%S')}")


def _at_home(path: Path) -> Path:
    from raydistill.system.storage import at_home

    return Path(at_home(path))


def _name(settings: "DistillConfig | PretrainConfig") -> str:
    """Return the name of a run or bank that the user gave none."""
    from raydistill.system.storage import readable

    name = f"{readable(settings.dataset)}-{settings.network.name}".replace(":", "-").replace("/", "_")
    return name[-MOST_LETTERS:]


def _result(artifact: "Artifact", path: Path) -> dict[str, Any]:
    from raydistill.commands.results import network_of

    return {
        **artifact.metrics,
        "recipe": artifact.recipe.model_dump(mode="json"),
        "baseline_recipe": artifact.provenance.get("baseline_recipe"),
        **network_of(artifact.config),
        "artifact": str(path),
        **({"other_data": True} if artifact.provenance.get("other_data") else {}),
    }

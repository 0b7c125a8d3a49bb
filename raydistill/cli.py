"""The command line. Heavy libraries are imported by the command that needs them, so that --help is quick."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from raydistill.errors import Diverged, Stopped, UserError
from raydistill.shell import typed

if TYPE_CHECKING:
    from raydistill.artifact import Artifact

app = typer.Typer(
    help="Distil data sets into a few synthetic images, and sweep for the best trade of accuracy and size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="RAYDISTILL_DATA", help="Folder of downloaded data sets [default: ~/.cache/raydistill]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Entry point of the `raydistill` command."""
    app()


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turns what the user can mend into one line and exit code 2."""
    try:
        yield
    except Stopped as stopped:
        console.print(f"{_escaped(str(stopped))}; the same command goes on from there", highlight=False)
        raise typer.Exit(130) from None
    except (UserError, Diverged, OSError) as error:  # OSError: no permission, no space
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {_escaped(' '.join(str(error).split()))}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from None


@app.command()
def distill(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file of settings, or of a sweep: its first known_good point.", show_default=False),
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to [default: runs/DATASET-NETWORK-TIME].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Distil one set: raydistill distill --set dataset=mnist --set images_per_class=1."""
    with one_line_errors(debug):
        from raydistill.config import DistillConfig
        from raydistill.settings import read_yaml, validated, with_overrides
        from raydistill.sweep_config import run_settings

        if resume is not None and (config or overrides or out):
            raise UserError("--resume takes the settings of the run it goes on with: no CONFIG, --set or --out with it")
        values = run_settings(read_yaml(config), config) if config else {}
        settings = validated(DistillConfig, with_overrides(values, overrides or [])) if resume is None else None
        folder = resume or out or _new_folder(f"{settings.dataset}-{settings.network}" if settings else "")
        if resume is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"{folder}: is not an empty folder; choose another --out, or go on with that run: --resume {folder}"
            )

        from raydistill.artifact import SUFFIX
        from raydistill.device import use_threads
        from raydistill.distill import distill as run_to_the_end
        from raydistill.progress import ProgressBar, TensorBoardWatcher

        use_threads()
        artifact = run_to_the_end(
            settings,
            out=folder,
            resume=resume is not None,
            data_dir=data_dir,
            watchers=(ProgressBar(console), TensorBoardWatcher(folder)),
        )
        path = folder / f"best{SUFFIX}"
        _print_result(artifact, path, folder)
        if as_json:
            _print_json(_result(artifact, path))


@app.command()
def evaluate(
    artifact: Annotated[str, typer.Argument(help="Folder NAME.distilled, or its s3:// or gs:// address.")],
    network: Annotated[str | None, typer.Option(help="Another network than it was distilled for.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="fixed, random or random_pretrained [default: as distilled].")
    ] = None,
    bank: Annotated[str | None, typer.Option(help="Another bank of pretrained networks, or published.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Another number of passes over the set.")] = None,
    nets: Annotated[
        int | None, typer.Option(help="Networks to average over [default: the config's test_nets].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test a distilled set: accuracy over fresh networks, beside random real images."""
    with one_line_errors(debug):
        from raydistill.artifact import load

        loaded = load(artifact)
        from raydistill.baselines import evaluate_with_baseline
        from raydistill.device import use_threads

        use_threads()
        start = time.perf_counter()
        with console.status("testing"):
            result, baseline = evaluate_with_baseline(
                loaded,
                network=network,
                weights=weights,
                bank=bank,
                epochs=epochs,
                nets=nets,
                seed=seed,
                device=device,
                data_dir=data_dir,
            )
        metrics = {
            **result.metrics("test_"),
            "nets": result.nets,
            "num_images": loaded.distilled.num_images,
            "baseline_random_real": baseline.accuracy,
            "artifact": artifact,
            "seconds": time.perf_counter() - start,
            "iterations": loaded.metrics.get("iterations"),
        }
        _print_accuracy(metrics)
        if as_json:
            _print_json(metrics)


@app.command()
def pretrain(
    config: Annotated[Path | None, typer.Argument(help="YAML file of settings.", show_default=False)] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bank [default: banks/DATASET-NETWORK].")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a bank of networks to start from; the same command goes on with one that was stopped."""
    with one_line_errors(debug):
        from raydistill.config import PretrainConfig
        from raydistill.settings import read_yaml, validated, with_overrides

        settings = validated(PretrainConfig, with_overrides(read_yaml(config) if config else {}, overrides or []))
        folder = out or Path("banks") / f"{settings.dataset}-{settings.network}".replace(":", "-").replace("/", "_")
        from raydistill.device import use_threads
        from raydistill.distill import stop_on_signals
        from raydistill.pretrain import pretrain as train_bank
        from raydistill.progress import pretrain_bar

        use_threads()
        start = time.perf_counter()
        with stop_on_signals() as stop, pretrain_bar(console, settings) as progress:
            manifest = train_bank(settings, folder, data_dir=data_dir, progress=progress, stop=stop)
        accuracy, std, nets = (manifest.metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
        console.print(
            f"[bold]{nets} networks in {folder}: test accuracy {100 * accuracy:.1f}% ± {100 * std:.1f}[/]",
            highlight=False,
        )
        console.print("to distil for them:", highlight=False)
        command = f"raydistill distill --set weights=random_pretrained --set bank={folder}"
        console.print(f"  {typed(command)} --set dataset=...", highlight=False, soft_wrap=True)
        if as_json:
            _print_json({**manifest.metrics, "bank": str(folder), "seconds": time.perf_counter() - start})


@app.command()
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
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test images that nobody learned (random, optimized, clustered, averaged), beside a distilled set's."""
    with one_line_errors(debug):
        begin = time.perf_counter()
        from raydistill.compare import compare, read_source

        wanted = read_source(source, overrides or [])
        from raydistill.device import use_threads
        from raydistill.tables import baselines_table

        use_threads()
        with console.status("testing"):
            comparison = compare(wanted, draws=draws, device=device, data_dir=data_dir)
        console.print(baselines_table(comparison))
        if as_json:
            _print_json(comparison.to_json() | {"seconds": time.perf_counter() - begin})


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="Folder NAME.distilled, or its s3:// or gs:// address.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write (.png, .pdf or .svg).")] = Path("grid.png"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the images of a distilled set."""
    with one_line_errors(debug):
        from raydistill.artifact import load
        from raydistill.report.figures import artifact_grid, write_figure

        loaded = load(artifact)
        write_figure(artifact_grid(loaded), out)
        console.print(f"{loaded.distilled.num_images} images drawn to {out}")
        if as_json:
            _print_json({"artifact": artifact, "picture": str(out), "num_images": loaded.distilled.num_images})


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML file of the sweep.")],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep of this name in its storage.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search settings with Ray Tune and Optuna: raydistill sweep sweeps/digits.yaml."""
    with one_line_errors(debug):
        from raydistill.settings import read_yaml, validated, with_overrides
        from raydistill.sweep_config import SweepConfig

        settings = validated(SweepConfig, with_overrides(read_yaml(file), overrides or []), f"{file}: ")
        from raydistill.sweep.run import sweep as run_sweep
        from raydistill.sweep.summary import print_summary

        result = run_sweep(settings, resume=resume, data_dir=data_dir, console=console)
        print_summary(result, console)
        if as_json:
            _print_json(result.to_json())
        if not result.trials:
            raise typer.Exit(1)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="YAML file of a cluster, as cluster.yaml.")] = Path("cluster.yaml"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a cluster's file before `ray up`: Ray's schema, machines, open ports, the token."""
    with one_line_errors(debug):
        from raydistill.cluster.check import check_cluster, cluster_summary

        summary = cluster_summary(check_cluster(file))
        kinds = ", ".join(f"{kind['least']} to {kind['most']} {name}" for name, kind in summary["workers"].items())
        console.print(f"{file}: ready for `ray up {file}`: a head and {kinds}", highlight=False, soft_wrap=True)
        if as_json:
            _print_json({"file": str(file)} | summary)


def _new_folder(name: str) -> Path:
    name = name.replace(":", "-").replace("/", "_")
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _result(artifact: "Artifact", path: Path) -> dict[str, Any]:
    keys = ("test_accuracy", "test_accuracy_std", "test_accuracy_before", "nets", "num_images", "baseline_random_real")
    return {**artifact.metrics, **{key: artifact.metrics.get(key) for key in keys}, "artifact": str(path)}


def _print_result(artifact: "Artifact", path: Path, folder: Path) -> None:
    if "diverged" in artifact.provenance:
        console.print(f"[yellow]diverged:[/] {_escaped(artifact.provenance['diverged'])}; the best set before is kept")
    elif artifact.metrics.get("stopped"):
        console.print(f"stopped at iteration {artifact.metrics['iterations']}; to go on:")
        console.print(f"  {typed(f'raydistill distill --resume {folder}')}", highlight=False, soft_wrap=True)
    _print_accuracy(artifact.metrics)
    console.print("look at the images, the training, or test other networks:")
    for command in (
        f"raydistill show {path} -o grid.png",
        f"tensorboard --logdir {folder}",
        f"raydistill evaluate {path} --network convnet",
    ):
        console.print(f"  {typed(command)}", highlight=False, soft_wrap=True)


def _print_accuracy(metrics: dict[str, Any]) -> None:
    accuracy, std, nets = (metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
    over = f"± {100 * std:.1f} over {nets} networks" if nets > 1 else "on its one network"
    console.print(
        f"[bold]{metrics['num_images']} images: test accuracy {100 * accuracy:.1f}% {over}[/] "
        f"({100 * metrics['test_accuracy_before']:.1f}% before); as many random real images: "
        f"{100 * metrics['baseline_random_real']:.1f}%",
        highlight=False,
    )
    if "test_attack_success" in metrics:
        for name, what in (
            ("class_accuracy", "the attacked class is recognised"),
            ("attack_success", "and taken for the target"),
            ("other_accuracy", "the others are recognised"),
        ):
            before, after = metrics[f"test_{name}_before"], metrics[f"test_{name}"]
            console.print(f"  {what:33} {100 * after:5.1f}% ({100 * before:.1f}% before)", highlight=False)
        console.print("  test accuracy here is the mean of the last two", highlight=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_json(values: dict[str, Any]) -> None:
    """One line on standard output, whatever the console's width."""
    sys.stdout.flush()
    print(json.dumps(values, allow_nan=False, default=str), flush=True)


if __name__ == "__main__":
    main()

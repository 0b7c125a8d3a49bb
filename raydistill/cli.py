"""The command line. Heavy libraries are imported by the command that needs them, so that --help is quick."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
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
    print_accuracy,
    print_json,
    print_result,
)
from raydistill.system.errors import UserError
from raydistill.system.lock import new_folder
from raydistill.system.output import lasting_output, say, utf8_names
from raydistill.system.shell import command, typed

if TYPE_CHECKING:
    from raydistill.config.distill_config import DistillConfig, PretrainConfig
    from raydistill.store.artifact import Artifact

MOST_LETTERS = 80  # of a folder's name, which a path may have gone into; file systems take 255 bytes

app = typer.Typer(
    help="Distil data sets into a few synthetic images, and sweep for the best trade of accuracy and size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the `raydistill` command."""
    utf8_names()
    with lasting_output():
        app()


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
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Distil one set: raydistill distill --set dataset=mnist --set images_per_class=1."""
    with one_line_errors(debug):
        from raydistill.config.distill_config import DistillConfig
        from raydistill.config.settings import read_yaml, validated, with_overrides
        from raydistill.config.sweep_config import run_settings

        if resume is not None and (config or overrides or out):
            raise UserError("--resume takes the settings of the run it goes on with: no CONFIG, --set or --out with it")
        if allow_other_data and resume is None:
            raise UserError("--allow-other-data: is for --resume; a new run takes the data that are there")
        values = run_settings(read_yaml(config), config) if config else {}
        values = with_overrides(values, overrides or [], DistillConfig)
        settings = validated(DistillConfig, values) if resume is None else None

        from raydistill.commands.progress import ProgressBar, TensorBoardWatcher
        from raydistill.runs.distillation import distill as run_to_the_end
        from raydistill.store.artifact import SUFFIX
        from raydistill.system.device import use_threads

        use_threads()
        with _folder(resume or out, settings) as folder:
            artifact = run_to_the_end(
                settings,
                out=folder,
                resume=resume is not None,
                data_dir=data_dir,
                allow_other_data=allow_other_data,
                watchers=(ProgressBar(console), TensorBoardWatcher(folder)),
            )
        path = folder / f"best{SUFFIX}"
        print_result(artifact, path, folder)
        if as_json:
            print_json(_result(artifact, path))


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
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test a distilled set: accuracy over fresh networks, beside random real images."""
    with one_line_errors(debug):
        from raydistill.store.artifact import load

        loaded = load(artifact)
        from raydistill.evaluation.baselines import evaluate_with_baseline
        from raydistill.system.device import use_threads

        use_threads()
        start = time.perf_counter()
        with console.status("testing"):
            result, baseline, same_data = evaluate_with_baseline(
                loaded,
                network=network,
                weights=weights,
                bank=bank,
                epochs=epochs,
                nets=nets,
                seed=seed,
                device=device,
                data_dir=data_dir,
                allow_other_data=allow_other_data,
            )
        metrics = {
            **result.metrics("test_"),
            "nets": result.nets,
            "num_images": loaded.distilled.num_images,
            "baseline_random_real": baseline.accuracy,
            "artifact": artifact,
            "seconds": time.perf_counter() - start,
            "iterations": loaded.metrics.get("iterations"),
            **({} if same_data else {"other_data": True}),
        }
        print_accuracy(metrics)
        if as_json:
            print_json(metrics)


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
        from raydistill.config.distill_config import PretrainConfig
        from raydistill.config.settings import read_yaml, validated, with_overrides

        values = with_overrides(read_yaml(config) if config else {}, overrides or [], PretrainConfig)
        settings = validated(PretrainConfig, values)
        folder = _at_home(out) if out else Path("banks") / _name(settings)
        from raydistill.commands.progress import pretrain_bar
        from raydistill.runs.distillation import stop_on_signals
        from raydistill.runs.pretraining import pretrain as train_bank
        from raydistill.system.device import use_threads

        use_threads()
        start = time.perf_counter()
        with stop_on_signals() as stop, pretrain_bar(console, settings) as progress:
            manifest = train_bank(settings, folder, data_dir=data_dir, progress=progress, stop=stop)
        accuracy, std, nets = (manifest.metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
        say(console, (f"{nets} networks in {folder}: test accuracy {100 * accuracy:.1f}% ± {100 * std:.1f}", "bold"))
        say(console, "to distil for them:")
        words = ("raydistill", "distill", "--set", "weights=random_pretrained", "--set", f"bank={folder}")
        say(console, f"  {typed(command(*words))} --set dataset=...")
        if as_json:
            print_json({**manifest.metrics, "bank": str(folder), "seconds": time.perf_counter() - start})


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
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test images that nobody learned (random, optimized, clustered, averaged), beside a distilled set's."""
    with one_line_errors(debug):
        begin = time.perf_counter()
        from raydistill.runs.comparison import compare, read_source

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


@app.command()
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


@app.command()
def sweep(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML file of the sweep; with --resume also its folder or address.")
    ],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep of this name in its storage.")] = False,
    data_dir: DataDir = None,
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search settings with Ray Tune and Optuna: raydistill sweep sweeps/digits.yaml."""
    with one_line_errors(debug):
        from raydistill.config.settings import validated, with_overrides
        from raydistill.config.sweep_config import SweepConfig, sweep_values

        if allow_other_data and not resume:
            raise UserError("--allow-other-data: is for --resume; a new sweep takes the data that are there")
        settings = validated(
            SweepConfig, with_overrides(sweep_values(source), overrides or [], SweepConfig), f"{source}: "
        )
        from raydistill.sweep.driver import run_sweep
        from raydistill.sweep.reporting.summary import print_summary

        result = run_sweep(
            settings, resume=resume, data_dir=data_dir, allow_other_data=allow_other_data, console=console
        )
        print_summary(result, console)
        if as_json:
            print_json(result.to_json())
        if result.failed or not result.trials:
            raise typer.Exit(1)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="YAML file of a cluster, as cluster.yaml.")] = Path("cluster.yaml"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a cluster's file before `ray up`: Ray's schema, machines, open ports, the token."""
    with one_line_errors(debug):
        from raydistill.cluster.cluster_file import check_cluster, cluster_summary

        summary = cluster_summary(check_cluster(file))
        kinds = ", ".join(f"{kind['least']} to {kind['most']} {name}" for name, kind in summary["workers"].items())
        say(console, f"{file}: ready for `{command('ray', 'up', file)}`: a head and {kinds}")
        if as_json:
            print_json({"file": str(file)} | summary)


@app.command()
def doctor(
    storage: Annotated[str, typer.Option(help="Where sweeps keep things: a folder, s3:// or gs://.")] = "runs",
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at this machine: what it has for raydistill, what works, and what to do where something does not."""
    with one_line_errors(debug):
        from raydistill.commands.doctor.examine import examine
        from raydistill.commands.doctor.finding import Options
        from raydistill.commands.doctor.show import print_findings

        options = Options(None if data_dir is None else str(data_dir), storage)
        found = print_findings(examine(options, debug=debug), console)
        well = all(finding.ok for finding in found)
        if as_json:
            print_json({"ok": well, "checks": [asdict(finding) for finding in found]})
        if not well:
            raise typer.Exit(1)


Place = Annotated[str, typer.Argument(metavar="STORAGE", help="The sweep's folder or address, as runs/digits.")]


@app.command()
def status(storage: Place, as_json: Json = False, debug: Debug = False) -> None:
    """Show how a sweep stands that runs here or elsewhere: raydistill status runs/digits."""
    with one_line_errors(debug):
        from raydistill.sweep.reporting.status import print_status, read_status

        found = read_status(storage)
        print_status(found, console)
        if as_json:
            print_json(found.to_json())


@app.command()
def stop(
    storage: Place,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for its end; 0 only asks.")] = 600.0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """End a sweep that runs here or elsewhere, such that it can go on: raydistill stop runs/digits."""
    with one_line_errors(debug):
        from raydistill.sweep.reporting.status import ALIVE, print_status
        from raydistill.sweep.reporting.status import stop as stop_sweep

        found = stop_sweep(storage, timeout, tell=lambda state: say(console, state))
        print_status(found, console)
        if found.state in ALIVE:
            say(console, (f"it was asked to stop, and is still {found.state}", "yellow"))
        if as_json:
            print_json(found.to_json())


def _folder(given: Path | None, settings: "DistillConfig | None") -> AbstractContextManager[Path]:
    """The folder that the user named, or a new one for this run alone."""
    if given is not None:
        return nullcontext(_at_home(given))
    assert settings is not None
    return new_folder(Path("runs") / f"{_name(settings)}-{time.strftime('%Y%m%d-%H%M%S')}")


def _at_home(path: Path) -> Path:
    from raydistill.system.storage import at_home

    return Path(at_home(path))


def _name(settings: "DistillConfig | PretrainConfig") -> str:
    """What a run or bank is called unless the user says otherwise."""
    from raydistill.system.storage import readable

    name = f"{readable(settings.dataset)}-{settings.network}".replace(":", "-").replace("/", "_")
    return name[-MOST_LETTERS:]


def _result(artifact: "Artifact", path: Path) -> dict[str, Any]:
    keys = ("test_accuracy", "test_accuracy_std", "test_accuracy_before", "nets", "num_images", "baseline_random_real")
    return {**artifact.metrics, **{key: artifact.metrics.get(key) for key in keys}, "artifact": str(path)} | (
        {"other_data": True} if artifact.provenance.get("other_data") else {}
    )


if __name__ == "__main__":
    main()

"""A distilled set beside the sets it has to beat."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import with_overrides
from raydistill.config.settings import read_yaml, validated
from raydistill.data import Dataset, is_same, load_dataset
from raydistill.evaluation.accuracy import evaluate_set
from raydistill.evaluation.baselines import Baselines, ByGradient, Judged
from raydistill.evaluation.knn import by_neighbours
from raydistill.evaluation.problem import evaluation_plan, real_data_for
from raydistill.method.objective import objective_of
from raydistill.runs.run import Run
from raydistill.store.artifact import Artifact, load
from raydistill.store.bank import adapted
from raydistill.system.device import pick_device, use_precision
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds: each kind of set by name (`distilled` first, where there is one), and what was compared."""

    rows: dict[str, Judged]
    config: DistillConfig
    num_images: int
    other_data: bool = False
    """Whether the data are others than those that the distilled set was made from."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        about = {"num_images": self.num_images, "dataset": self.config.dataset, "network": self.config.network.name}
        if self.other_data:
            about["other_data"] = True
        return {"baselines": {name: asdict(row) for name, row in self.rows.items()}, **about}


def compare(
    source: Artifact | DistillConfig,
    *,
    draws: int = 20,
    device: str | None = None,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
) -> Comparison:
    """Tests random real, optimized real, k-means and average images, and the distilled ones where there are any.

    Args:
        source: an artifact, or the settings of one; either says data, network, initial weights, size and seed.
        draws: sets of random images, and networks with random weights, to average over.
        device: auto, cpu, cuda or cuda:N; by default the one of the settings, for an artifact auto.
        data: the real data, where they are loaded already.
        data_dir: folder of downloaded data sets.
        allow_other_data: go on with other data than those that the artifact was made from.

    Raises:
        UserError: the settings do not fit the data, or the artifact fits neither its network nor its data.
    """
    if draws < 1:
        raise UserError(f"draws={draws}: at least 1")
    if isinstance(source, Artifact):
        return _compare_artifact(source, draws, device or "auto", data, data_dir, allow_other_data)
    config = adapted(source.model_copy(update={"device": device or source.device}))
    run = Run(config, data or load_dataset(config, data_dir))  # what it would start with
    start, like = run.distiller.initial_weights[0], run.distiller.learned.unstack()[0]
    baselines = Baselines(run.network, start, like, run.data, config.seed, run.objective, draws)
    return Comparison(baselines.all(), config, like.num_images)


def _compare_artifact(
    artifact: Artifact,
    draws: int,
    device: str,
    data: Dataset | None,
    data_dir: str | Path | None,
    allow_other_data: bool,
) -> Comparison:
    config, network, start = evaluation_plan(artifact)
    where = pick_device(device)
    if where.type == "cuda":  # as `evaluate_planned`
        use_precision(config.precision, where, config.deterministic)
    data = real_data_for(artifact, data, data_dir, allow_other_data).to(where)
    objective = objective_of(config, data.class_names)
    distilled = artifact.distilled.to(where)
    weights = start.held_out(config.test_nets, "test", config.seed).to(where)  # as at the end of the run
    result = evaluate_set(network, distilled, weights, data.test, objective)
    classes = distilled.labels.argmax(-1)
    near = by_neighbours(distilled.images[None], classes, data.val, data.test, objective)
    baselines = Baselines(network, start, distilled, data, config.seed, objective, draws)
    rows = {"distilled": Judged(ByGradient.of(result, None), near), **baselines.all()}
    return Comparison(rows, config, distilled.num_images, not is_same(data, artifact.provenance))


def read_source(name: str | None, overrides: list[str]) -> Artifact | DistillConfig:
    """What a name stands for: of a YAML file, or none, settings with `overrides`; of anything else the artifact there.

    Raises:
        UserError: there is no such thing, or overrides come with an artifact.
    """
    if name is None or name.endswith((".yaml", ".yml")) or Path(at_home(name)).is_file():
        return validated(DistillConfig, with_overrides(read_yaml(name) if name else {}, overrides, DistillConfig))
    if overrides:
        raise UserError(f"--set {overrides[0]}: {name} is no YAML file, and an artifact has its own settings")
    return load(name)

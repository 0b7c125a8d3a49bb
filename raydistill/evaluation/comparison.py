"""A distilled set beside its baselines."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import with_overrides
from raydistill.config.recipe_settings import ScheduleRecipe
from raydistill.config.settings import read_yaml, validated
from raydistill.data import Dataset, is_same, load_dataset
from raydistill.evaluation.accuracy import evaluate_on
from raydistill.evaluation.artifact_problem import EvalOptions, problem_of_artifact
from raydistill.evaluation.baselines import Baselines, ByGradient, Judged
from raydistill.evaluation.knn import by_neighbours
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import recipe_so_far
from raydistill.method.recipe import grad_steps
from raydistill.store.artifact import Artifact, load
from raydistill.store.bank import adapted
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns: each kind of set by name (`distilled` first, where there is one), and their settings."""

    rows: dict[str, Judged]
    config: DistillConfig
    num_images: int
    grad_steps: int
    """How many gradient steps networks are trained for on each."""
    other_data: bool = False
    """Whether the data differ from those that the distilled set was made from."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        network = {"name": self.config.network.name, **self.config.network.about()}
        about = {
            "num_images": self.num_images,
            "grad_steps": self.grad_steps,
            "dataset": self.config.dataset,
            "network": network,
        }
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
    """Test random real, optimized real, k-means and average images, and the distilled ones where there are any.

    Args:
        source: an artifact, or the settings of one; they say the data, network, initial weights, size and seed.
        draws: the number of sets of random images, and of networks with random weights, to average over.
        device: auto, cpu, cuda or cuda:N; by default the one of the settings, for an artifact auto.
        data: the real data, where they are loaded already.
        data_dir: the folder of downloaded data sets.
        allow_other_data: take other data than those that the artifact was made from.

    Raises:
        UserError: the settings do not fit the data, or the artifact fits neither its network nor its data.
    """
    if draws < 1:
        raise UserError(f"draws={draws}: at least 1")
    if isinstance(source, Artifact):
        return _compare_artifact(source, draws, device or "auto", data, data_dir, allow_other_data)
    config = adapted(source.model_copy(update={"device": device or source.device}))
    problem = Problem.of(config, data or load_dataset(config, data_dir))
    like = problem.distiller().learned.unstack()[0]  # The set that a run would start with.
    recipe = recipe_so_far(problem, like)
    rows = Baselines(problem, like, recipe, draws).all()
    return Comparison(rows, config, like.num_images, grad_steps(recipe, like))


def _compare_artifact(
    artifact: Artifact,
    draws: int,
    device: str,
    data: Dataset | None,
    data_dir: str | Path | None,
    allow_other_data: bool,
) -> Comparison:
    options = EvalOptions(seed=artifact.config.seed, device=device)  # The networks are those of the end of the run.
    problem, distilled = problem_of_artifact(artifact, options, data, data_dir, allow_other_data)
    data, classes = problem.data, distilled.labels.argmax(-1)
    result = evaluate_on(problem, distilled, "test", artifact.recipe)
    near = by_neighbours(distilled.images[None], classes, data.val, data.test, problem.objective)
    rate = None if isinstance(artifact.recipe, ScheduleRecipe) else artifact.recipe.lr
    others = Baselines(problem, distilled, artifact.recipe, draws).all()
    rows = {"distilled": Judged(ByGradient.of(result, rate), near), **others}
    steps = grad_steps(artifact.recipe, distilled)
    return Comparison(rows, problem.config, distilled.num_images, steps, not is_same(data, artifact.provenance))


def read_source(name: str | None, overrides: list[str]) -> Artifact | DistillConfig:
    """Read what to compare: settings from a YAML file, or from none, with `overrides`; else the artifact of that name.

    Raises:
        UserError: there is no such thing, or overrides come with an artifact.
    """
    if name is None or name.endswith((".yaml", ".yml")) or Path(at_home(name)).is_file():
        return validated(DistillConfig, with_overrides(read_yaml(name) if name else {}, overrides, DistillConfig))
    if overrides:
        raise UserError(f"--set {overrides[0]}: {name} is no YAML file, and an artifact has its own settings")
    return load(name)

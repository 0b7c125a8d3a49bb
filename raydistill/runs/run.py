"""One distillation around the method: validation, the best set so far, the final test, and the state to resume from.

`raydistill.distill` runs one to its end; a sweep's trial (`raydistill.sweep.searching.trial`) drives the same `Run`.
"""

import math
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import Recipe, recipe_of
from raydistill.data import Dataset, identity, is_same
from raydistill.evaluation.accuracy import WORST_LOSS, Evaluation, evaluate_on
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import recipe_so_far, validation_recipe
from raydistill.evaluation.testing import final_test
from raydistill.method import DistilledSet
from raydistill.method.initial_weights import FixedWeights
from raydistill.runs.mean_loss import MeanLoss
from raydistill.runs.rewinder import Rewinder
from raydistill.store.artifact import Artifact
from raydistill.store.bank import Bank
from raydistill.system.errors import Diverged

if TYPE_CHECKING:
    from raydistill.method.workers import Workers

Metrics = dict[str, float]


class Run:
    """A distillation and its best set so far, by accuracy on the validation split.

    Args:
        config: the settings.
        data: the real data, on any device.
        bank: the pretrained networks that the settings name; read from there if not given.
        workers: the processes that share the work, where there are several.
        device: where to compute; by default where the workers do, else where the settings say.

    Raises:
        UserError: the settings do not fit the data, the bank or the device.
    """

    def __init__(
        self,
        config: DistillConfig,
        data: Dataset,
        bank: Bank | None = None,
        workers: "Workers | None" = None,
        device: torch.device | None = None,
    ) -> None:
        self.config = config
        device = device or (workers.device if workers is not None else None)
        self.problem = Problem.of(config, data, bank, device)
        self.workers = workers
        self.distiller = self.problem.distiller(workers)
        self.best: DistilledSet | None = None
        self.best_metrics: Metrics = {}
        self.leader = 0  # The set of the population with the highest accuracy in the last validation.
        self.best_member = 0  # The set of the population that `best` was.
        self.member_metrics: list[Metrics] = [{} for _ in self.distiller.members]  # The best of each set so far.
        self.rewinder = Rewinder(self.distiller, config.outer.rewinds, workers)
        self.recipe = recipe_so_far(self.problem, self.current)  # The first validation, and the test, may choose one.
        self.baseline_recipe: Recipe | None = None  # The best one for random real images, after the test.
        self.other_data = False  # Whether it was resumed with other data than it began with.
        self.seconds = 0.0
        self.mean_loss = MeanLoss(config.population.size, self.problem.device)

    @property
    def iteration(self) -> int:
        """Outer iterations done."""
        return self.distiller.iteration

    @property
    def done(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration >= self.config.iterations

    @property
    def current(self) -> DistilledSet:
        """The newest set, of a population the one that did best in the last validation."""
        return self.distiller.averaged.unstack()[self.leader]

    def advance(
        self, stop: Callable[[], bool] = lambda: False, tick: Callable[[int], None] = lambda i: None
    ) -> Metrics | None:
        """Iterate up to the next validation (every `eval_every` iterations and after the last) and validate.

        Args:
            stop: called after each iteration; True ends the call early, without a validation.
            tick: called with the iteration after each one.

        Returns:
            The metrics, without `loss` where that was not finite; or None if it was stopped.

        Raises:
            Diverged: the loss is no longer finite, and there is no way back: none of the sets has a good validation and
                rewinds left, or it was the last iteration.
        """
        begin, first = time.perf_counter(), self.iteration
        reached = self._iterate(stop, tick)
        if reached:
            losses = self.mean_loss.take()
            pace = (self.iteration - first) / (time.perf_counter() - begin)
            back = not self.done and self.rewinder.rescue(losses, self.member_metrics)
            if math.isinf(min(losses)) and not back:
                raise Diverged(
                    f"the loss is inf at iteration {self.iteration}: a smaller outer_lr or inner_lr would help"
                )
            metrics = self._validate(losses) | {"iterations_per_second": pace}
        self.seconds += time.perf_counter() - begin
        return metrics | {"seconds": self.seconds} if reached else None

    def _iterate(self, stop: Callable[[], bool], tick: Callable[[int], None]) -> bool:
        """Iterate up to the next validation; return whether it came so far."""
        while True:
            if self.workers is not None:
                self.workers.order(self.workers.STEP)
            self.mean_loss.add(self.distiller.step())
            tick(self.iteration)
            if self.iteration % self.config.eval_every == 0 or self.done:
                return True
            if stop():
                return False

    def _validate(self, losses: list[float]) -> Metrics:
        if not self.best_metrics:
            self.recipe = validation_recipe(self.problem, self.current)
        results = [
            evaluate_on(self.problem.of_member(member), distilled, "validation", self.recipe)
            for member, distilled in enumerate(self.distiller.averaged.unstack())
        ]
        for member, (known, result) in enumerate(zip(self.member_metrics, results, strict=True)):
            if result.accuracy > known.get("val_accuracy", -1.0):
                known.update(_validation(result), best_iteration=self.iteration)
                self.rewinder.keep(member)
        # A set that diverged still has the accuracy of guessing, so its loss counts first.
        self.leader = max(range(len(results)), key=lambda i: (results[i].loss < WORST_LOSS, results[i].accuracy))
        if results[self.leader].accuracy > self.best_metrics.get("val_accuracy", -1.0):
            self.best, self.best_member = self.current.detached(), self.leader
            self.best_metrics = self.member_metrics[self.leader] | (
                {"best_member": self.leader} if self.config.population.size > 1 else {}
            )
        metrics = _validation(results[self.leader]) | {
            "iterations": self.iteration,
            "outer_lr": self.distiller.outer_rate(),
        }
        if math.isfinite(least := min(losses)):
            metrics["loss"] = least
        if not self.done:
            self.rewinder.judge(losses, [result.accuracy for result in results], self.member_metrics)
        return metrics | ({"rewinds": self.rewinder.count} if self.rewinder.count else {})

    def population(self) -> list[dict[str, float]]:
        """Return for each set its seed and learning rates, and its best validation so far (none before the first)."""
        return [
            {"seed": member.seed, "inner_lr": member.inner_lr, "outer_lr": member.outer_lr} | metrics
            for member, metrics in zip(self.distiller.members, self.member_metrics, strict=True)
        ]

    def test(self) -> dict[str, float | int]:
        """Choose the best set's recipe, and test it with fresh networks on the test images, random real ones beside it.

        From then on the time of the run includes that of the choice, and `artifact` has the recipe.
        """
        found = final_test(self.problem.of_member(self.best_member), self.best or self.current)
        self.recipe, self.baseline_recipe = found.recipe, found.baseline_recipe
        self.seconds += found.metrics["recipe_seconds"]
        return found.metrics

    def artifact(self, results: dict[str, float | int] | None = None, **provenance: Any) -> Artifact:
        """Make an artifact of the best set so far (before the first validation the current one), with more results."""
        distilled = (self.best or self.current.detached()).to(torch.device("cpu"))
        data, network, bank = self.problem.data, self.problem.network, self.problem.bank
        start = self.problem.initial_weights[self.best_member]
        fixed = network.unflatten(start.weights.cpu()) if isinstance(start, FixedWeights) else None
        about = {
            "seed": self.config.seed,
            **identity(data),
            "versions": {name: version(name) for name in ("raydistill", "torch", "pyarrow")},
        }
        if self.other_data:
            about["other_data"] = True
        if bank is not None:
            about["bank"] = bank.fingerprint
        if self.config.population.size > 1:
            about["member"] = self.population()[self.best_member]
        if self.baseline_recipe is not None:
            about["baseline_recipe"] = self.baseline_recipe.model_dump(mode="json")
        return Artifact(
            distilled=distilled,
            recipe=self.recipe,
            config=self.config,
            class_names=data.class_names,
            mean=data.mean,
            std=data.std,
            whitening=data.whitening,
            weights=fixed,
            metrics={
                **self.best_metrics,
                **({"rewinds": self.rewinder.count} if self.rewinder.count else {}),
                "num_images": distilled.num_images,
                "iterations": self.iteration,
                "seconds": self.seconds,
                **(results or {}),
            },
            provenance=about | provenance,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs: tensors and plain values only."""
        best = self.best and {k: getattr(self.best, k) for k in ("images", "labels", "raw_rates")}
        return {
            "config": self.config.model_dump(mode="json"),
            "data": identity(self.problem.data) | {"other_data": self.other_data},
            "distiller": self.distiller.state_dict(),
            "best": best,
            "best_metrics": self.best_metrics,
            "members": (self.leader, self.best_member, self.member_metrics),
            "rewinder": self.rewinder.state_dict(),
            "recipe": self.recipe.model_dump(mode="json"),
            "seconds": self.seconds,
            "loss": self.mean_loss.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of a Run with the same config, and note whether the data have changed."""
        kept = state.get("data", {})
        self.other_data = bool(kept.get("other_data")) or not is_same(self.problem.data, kept)
        self.distiller.load_state_dict(state["distiller"])
        if self.workers is not None:
            self.workers.order(self.workers.LOAD, state["distiller"])
        self.best = state["best"] and DistilledSet(**state["best"]).to(self.problem.device)
        self.best_metrics = state["best_metrics"]
        self.leader, self.best_member, self.member_metrics = state["members"]
        self.rewinder.load_state_dict(state["rewinder"])
        self.recipe = recipe_of(state["recipe"])
        self.seconds = state["seconds"]
        self.mean_loss.load_state_dict(state["loss"])


def _validation(result: Evaluation) -> Metrics:
    return result.metrics("val_") | {"val_loss": result.loss}

"""A distillation with everything around the method: validation, the best set so far, the final test, its state.

`raydistill.distill` runs one to its end; a sweep's trial (`raydistill.sweep.searching.trial`) drives the same `Run`.
"""

import math
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, identity, is_same
from raydistill.evaluation.accuracy import WORST_LOSS, Evaluation, before_and_after, evaluate_set
from raydistill.evaluation.baselines import random_real
from raydistill.method import DistilledSet, Distiller
from raydistill.method.initial_weights import FixedWeights
from raydistill.method.objective import Objective, objective_of
from raydistill.networks import Network, build_network
from raydistill.store.artifact import Artifact
from raydistill.store.bank import Bank, check_bank, load_bank
from raydistill.system.device import pick_device, use_precision
from raydistill.system.errors import Diverged

if TYPE_CHECKING:
    from raydistill.method.workers import Workers

Metrics = dict[str, float]


class Run:
    """A distillation and its best set so far, by accuracy on the validation split.

    Args:
        config: the settings.
        data: the real data, on any device.
        bank: the pretrained networks that the config names; read from there if not given.
        workers: the processes that share the work, where there are several.
        device: where to compute; by default where the workers do, else where the config says.

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
        self.device = device or (workers.device if workers is not None else pick_device(config.device))
        use_precision(config.precision, self.device, config.deterministic)
        self.data = data.to(self.device)
        self.bank = bank or (load_bank(config.bank_folder) if config.bank_folder else None)
        self.network, self.objective = matched(config, data, self.bank)
        self.workers = workers
        self.distiller = Distiller(
            config,
            self.network,
            self.data.train,
            data.num_classes,
            self.objective,
            self.bank.networks if self.bank is not None else None,
            workers,
        )
        self.best: DistilledSet | None = None
        self.best_metrics: Metrics = {}
        self.leader = 0  # which set of the population did best in the last validation,
        self.best_member = 0  # and which one `best` is of
        self.member_metrics: list[Metrics] = [{} for _ in self.distiller.members]  # the best of each so far
        self.other_data = False  # whether it went on with other data than it began with
        self.seconds = 0.0
        self._loss_sum = torch.zeros(config.population.size, device=self.device)
        self._loss_count = torch.zeros(config.population.size, device=self.device)

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
        """Iterates up to the next validation (every `eval_every` iterations and after the last) and does it.

        Args:
            stop: asked after each iteration; True ends the call early, without a validation.
            tick: told the iteration after each one.

        Returns:
            the metrics, or None if it was stopped.

        Raises:
            Diverged: the loss is not finite any more.
        """
        begin = time.perf_counter()
        first = self.iteration
        while True:
            if self.workers is not None:
                self.workers.order(self.workers.STEP)
            loss = self.distiller.step()
            self._loss_sum += loss.nan_to_num(0.0, 0.0, 0.0)
            self._loss_count += loss.isfinite()
            tick(self.iteration)
            if self.iteration % self.config.eval_every == 0 or self.done:
                break
            if stop():
                self.seconds += time.perf_counter() - begin
                return None
        losses = self._loss_sum / self._loss_count  # 0 / 0 where not one was finite
        least = losses.nan_to_num(nan=torch.inf).min().item()  # waits for the device
        pace = (self.iteration - first) / (time.perf_counter() - begin)
        self._loss_sum.zero_()
        self._loss_count.zero_()
        if not math.isfinite(least):
            raise Diverged(
                f"the loss is {least} at iteration {self.iteration}: a smaller outer_lr or inner_lr would help"
            )
        metrics = self._validate() | {"loss": least, "iterations_per_second": pace}
        self.seconds += time.perf_counter() - begin
        return metrics | {"seconds": self.seconds}

    def _validate(self) -> Metrics:
        results = []
        for start, member in zip(self.distiller.initial_weights, self.distiller.averaged.unstack(), strict=True):
            weights = start.held_out(self.config.val_nets, "validation", self.config.seed).to(self.device)
            results.append(evaluate_set(self.network, member, weights, self.data.val, self.objective))
        for known, result in zip(self.member_metrics, results, strict=True):
            if result.accuracy > known.get("val_accuracy", -1.0):
                known.update(_validation(result), best_iteration=self.iteration)
        # a set that diverged still guesses right now and then
        self.leader = max(range(len(results)), key=lambda i: (results[i].loss < WORST_LOSS, results[i].accuracy))
        if results[self.leader].accuracy > self.best_metrics.get("val_accuracy", -1.0):
            self.best, self.best_member = self.current.detached(), self.leader
            self.best_metrics = self.member_metrics[self.leader] | (
                {"best_member": self.leader} if self.config.population.size > 1 else {}
            )
        return _validation(results[self.leader]) | {
            "iterations": self.iteration,
            "outer_lr": self.distiller.outer_rate(),
        }

    def population(self) -> list[dict[str, float]]:
        """For each set: its seed and learning rates, and its best validation so far (none before the first)."""
        return [
            {"seed": member.seed, "inner_lr": member.inner_lr, "outer_lr": member.outer_lr} | metrics
            for member, metrics in zip(self.distiller.members, self.member_metrics, strict=True)
        ]

    def test(self) -> dict[str, float | int]:
        """The final report: the best set over fresh networks on the test set, beside random real images."""
        distilled = self.best or self.current
        start = self.distiller.initial_weights[self.best_member]
        weights = start.held_out(self.config.test_nets, "test", self.config.seed).to(self.device)
        result = before_and_after(self.network, distilled, weights, self.data.test, self.objective)
        baseline = random_real(self.network, start, distilled, self.data, self.config.seed, self.objective)
        return result.metrics("test_") | {
            "nets": result.nets,
            "baseline_random_real": baseline.accuracy,
            "baseline_random_real_std": baseline.accuracy_std,
        }

    def artifact(self, results: dict[str, float | int] | None = None, **provenance: Any) -> Artifact:
        """The best set so far (the current one before the first validation), with `results` among its metrics."""
        distilled = (self.best or self.current.detached()).to(torch.device("cpu"))
        start = self.distiller.initial_weights[self.best_member]
        fixed = self.network.unflatten(start.weights.cpu()) if isinstance(start, FixedWeights) else None
        about = {
            "seed": self.config.seed,
            **identity(self.data),
            "versions": {name: version(name) for name in ("raydistill", "torch", "pyarrow")},
        }
        if self.other_data:
            about["other_data"] = True
        if self.bank is not None:
            about["bank"] = self.bank.fingerprint
        if self.config.population.size > 1:
            about["member"] = self.population()[self.best_member]
        return Artifact(
            distilled=distilled,
            config=self.config,
            class_names=self.data.class_names,
            mean=self.data.mean,
            std=self.data.std,
            weights=fixed,
            metrics={
                **self.best_metrics,
                "num_images": distilled.num_images,
                "iterations": self.iteration,
                "seconds": self.seconds,
                **(results or {}),
            },
            provenance=about | provenance,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs, tensors and plain values only."""
        best = self.best and {k: getattr(self.best, k) for k in ("images", "labels", "raw_rates")}
        return {
            "config": self.config.model_dump(mode="json"),
            "data": identity(self.data) | {"other_data": self.other_data},
            "distiller": self.distiller.state_dict(),
            "best": best,
            "best_metrics": self.best_metrics,
            "members": (self.leader, self.best_member, self.member_metrics),
            "seconds": self.seconds,
            "loss": (self._loss_sum, self._loss_count),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of a Run with the same config; that its data were others is kept."""
        kept = state.get("data", {})
        self.other_data = bool(kept.get("other_data")) or not is_same(self.data, kept)
        self.distiller.load_state_dict(state["distiller"])
        if self.workers is not None:
            self.workers.order(self.workers.LOAD, state["distiller"])
        self.best = state["best"] and DistilledSet(**state["best"]).to(self.device)
        self.best_metrics = state["best_metrics"]
        self.leader, self.best_member, self.member_metrics = state["members"]
        self.seconds = state["seconds"]
        self._loss_sum.copy_(state["loss"][0])
        self._loss_count.copy_(state["loss"][1])


def matched(config: DistillConfig, data: Dataset, bank: Bank | None) -> tuple[Network, Objective]:
    """The network and the objective that the config names.

    Raises:
        UserError: they, the data and the bank do not go together.
    """
    network = build_network(config, data.image_shape, data.num_classes)
    if bank is not None:
        check_bank(bank.manifest, config, data.class_names, data.image_shape, network)
    return network, objective_of(config, data.class_names)


def _validation(result: Evaluation) -> Metrics:
    return result.metrics("val_") | {"val_loss": result.loss}

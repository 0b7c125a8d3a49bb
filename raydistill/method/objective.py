"""The objective: which class a trained network should give to each real image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.learned_settings import Attack
from raydistill.data import Split
from raydistill.system.errors import UserError


@dataclass(frozen=True)
class Objective:
    """The aim: to classify real images, or to mistake one class and classify the rest (Wang et al. 2018, 3.6).

    Adapting pretrained networks to other data is the former: only the initial weights differ.
    """

    attack: tuple[int, int] | None = None
    """The class to be mistaken, and the class that it should be taken for."""

    def wanted(self, labels: Tensor) -> Tensor:
        """Return the classes that images of these classes [...] should be taken for."""
        if self.attack is None:
            return labels
        attacked, target = self.attack
        return torch.where(labels == attacked, target, labels)

    def sources(self, real: Split) -> list[Split]:
        """Return what real batches are drawn from in equal parts: in an attack the attacked class, and all images.

        So that the loss minds that class and the others alike, as the `accuracy` of `measures` does.
        """
        return [real] if self.attack is None else [real.only(self.attack[0]), real]

    def measures(self, confusion: Tensor) -> dict[str, Tensor]:
        """Return the results by name, each a share [N]; the first, `accuracy`, is the one to maximise.

        In an attack these are the accuracy on the attacked class, the share of it that is taken for the target, and the
        accuracy on the other classes. The `accuracy` is then the mean of the last two: a class in ten that is attacked
        counts as much as the other nine.

        Args:
            confusion: [N, K, K], how many images of the first class each of N networks takes for the second.
        """
        right = confusion.diagonal(dim1=1, dim2=2)
        if self.attack is None:
            return {"accuracy": right.sum(1) / confusion.sum((1, 2))}
        attacked, target = self.attack
        of_class = confusion[:, attacked]
        others = torch.arange(confusion.shape[1], device=confusion.device) != attacked
        success = of_class[:, target] / of_class.sum(1)
        other = right[:, others].sum(1) / confusion[:, others].sum((1, 2))
        return {
            "accuracy": (success + other) / 2,
            "class_accuracy": of_class[:, attacked] / of_class.sum(1),
            "attack_success": success,
            "other_accuracy": other,
        }


CLASSIFY = Objective()


def objective_of(config: DistillConfig, class_names: tuple[str, ...]) -> Objective:
    """Return the objective that the config names.

    Raises:
        UserError: it names a class that is not there.
    """
    wanted = config.objective
    if not isinstance(wanted, Attack):
        return CLASSIFY
    attacked = _class_number("objective.attacked", wanted.attacked, class_names)
    target = _class_number("objective.target", wanted.target, class_names)
    if attacked == target:
        raise UserError(f"objective.target={wanted.target}: is objective.attacked; choose another class")
    return Objective((attacked, target))


def _class_number(setting: str, wanted: int | str, class_names: tuple[str, ...]) -> int:
    if isinstance(wanted, int) and 0 <= wanted < len(class_names):
        return wanted
    if wanted in class_names:
        return class_names.index(str(wanted))
    known = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")
    raise UserError(
        f"{setting}={wanted}: there is no such class (there are {known}; or a number, 0 to {len(class_names) - 1})"
    )

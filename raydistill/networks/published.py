"""The weights that torchvision publishes for its classifiers."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.networks.initialisers import Initialiser, named_tensors
from raydistill.networks.torchvision_models import PREFIX, structure
from raydistill.system.errors import UserError


class PublishedWeights:
    """A distribution of networks as torchvision published them, but for the last layer, which is drawn anew.

    That layer tells other classes apart than ours, even where there are as many; it is drawn by an initialiser, so that
    several networks differ in it alone. The published networks saw images normalised by ImageNet's mean and deviation,
    and ours are normalised by their own data's: for photographs the two agree, roughly.

    Args:
        network: torchvision:NAME.
        module: that network, for the number of outputs wanted.
        init: distribution of the last layer.
        gain: its gain; None for the usual.
    """

    def __init__(self, network: str, module: nn.Module, init: str, gain: float | None = None) -> None:
        self.network = network
        self.names = [name for name, _ in named_tensors(module)]
        last = _last_layer(network)
        layer = module.get_submodule(last)
        self.initialiser = Initialiser(layer, init, gain)
        self.last_sizes = {f"{last}.{name}": tensor.numel() for name, tensor in named_tensors(layer)}
        self._published: dict[torch.device, dict[str, Tensor]] = {}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` draws [count, P], on the generator's device.

        The published weights are downloaded the first time, to torch.hub's folder (TORCH_HOME).

        Raises:
            UserError: no weights are published, or they cannot be downloaded or read.
        """
        last = self.initialiser.draw(count, generator).split(list(self.last_sizes.values()), 1)
        drawn = dict(zip(self.last_sizes, last, strict=True))
        copied = self._published_on(generator.device)
        return torch.cat([drawn[n] if n in drawn else copied[n].expand(count, -1) for n in self.names], 1)

    def _published_on(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._published:
            self._published[device] = {
                name: part.to(device).flatten() for name, part in published(self.network).items()
            }
        return self._published[device]


def _last_layer(network: str) -> str:
    """Return the path of the layer whose shape depends on the number of classes."""
    one, two = (dict(named_tensors(structure(network, outputs))) for outputs in (1, 2))
    [path] = {name.rpartition(".")[0] for name in one if one[name].shape != two[name].shape}
    return path


def published(network: str) -> dict[str, Tensor]:
    """Return parameters and statistics by name, as published, for as many classes as they were trained on.

    Raises:
        UserError: there are none, or they cannot be downloaded or read.
    """
    from torchvision import models

    try:
        weights: Any = models.get_model_weights(network.removeprefix(PREFIX)).DEFAULT
    except (ValueError, AttributeError) as error:
        raise UserError(f"bank=published: torchvision publishes no weights of network={network}") from error
    module = structure(network, len(weights.meta["categories"]))
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub prints to stdout.
            state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except Exception as error:  # The network, the disk or a damaged file may raise many kinds.
        if file.exists():
            raise UserError(f"{file}: cannot be read as weights; delete it, and it is downloaded anew") from error
        why = " ".join(str(error).split())
        raise UserError(
            f"bank=published: {weights.url} cannot be downloaded ({why}); put it into {file.parent} (TORCH_HOME)"
        ) from error
    try:
        for name in [name for name in state if _current_name(name) != name]:
            state[_current_name(name)] = state.pop(name)  # This dict also contains versions, so it is changed in place.
        module.load_state_dict(state, strict=False, assign=True)
        tensors = {name: tensor.detach() for name, tensor in named_tensors(module)}
        missing = [name for name, tensor in tensors.items() if tensor.is_meta]
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(f"{file}: does not hold weights of network={network}: {_one_line(error)}") from error
    if missing:
        raise UserError(f"{file}: does not hold weights of network={network}: {missing[0]} is missing")
    return tensors


def _current_name(name: str) -> str:
    """Return the name in today's code: densenet's files are older, and have norm.1 for norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()

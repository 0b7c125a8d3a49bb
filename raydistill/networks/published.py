"""The weights that torchvision publishes for its classifiers."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydistill.config import DistillConfig
from raydistill.errors import UserError
from raydistill.networks.functional import Network
from raydistill.networks.initialisers import Initialiser, named_tensors
from raydistill.networks.torchvision_models import PREFIX, structure


def published_weights(config: DistillConfig, network: Network, generator: torch.Generator, count: int) -> Tensor:
    """Initial weights with everything as torchvision published it but the last layer, which is drawn anew.

    That layer tells other classes apart than ours, even where there are as many; it is drawn from `config.init`, so
    that several networks differ in it alone. The published networks saw images normalised by ImageNet's mean and
    deviation, and ours are normalised by their own data's: the two agree for photographs, roughly.

    Args:
        config: the settings of the network.
        network: what `build_network` made of them, for bank=published.
        generator: of the last layer's draws.
        count: how many networks, N.

    Returns:
        [N, P], on the generator's device. They are downloaded at first, to torch.hub's folder (TORCH_HOME).

    Raises:
        UserError: no weights are published, or they cannot be downloaded or read.
    """
    if not config.network.startswith(PREFIX):
        raise UserError(
            f"bank=published: is for network={PREFIX}NAME; there are no published weights of {config.network}"
        )
    state = _published(config.network)
    head = _last_layer(config.network)
    initialiser = Initialiser(network.module.get_submodule(head), config.init, config.init_gain)
    names = [name for name in network.shapes if name.rpartition(".")[0] == head]
    sizes = [network.module.get_parameter(name).numel() for name in names]
    drawn = dict(zip(names, initialiser.draw(count, generator).split(sizes, 1), strict=True))
    copied = {name: state[name].flatten().expand(count, -1) for name in network.shapes if name not in drawn}
    return torch.cat([(drawn | copied)[name].to(generator.device) for name in network.shapes], 1)


def _last_layer(network: str) -> str:
    """The path of the layer whose shape depends on the number of classes."""
    one, two = (dict(named_tensors(structure(network, outputs))) for outputs in (1, 2))
    [path] = {name.rpartition(".")[0] for name in one if one[name].shape != two[name].shape}
    return path


def _published(network: str) -> dict[str, Tensor]:
    """Parameters and statistics by name, as published, for as many classes as these were trained on."""
    from torchvision import models

    try:
        weights: Any = models.get_model_weights(network.removeprefix(PREFIX)).DEFAULT
    except (ValueError, AttributeError) as error:
        raise UserError(f"bank=published: torchvision publishes no weights of network={network}") from error
    module = structure(network, len(weights.meta["categories"]))
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub prints there
            state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except Exception as error:  # of the network, the disk, or one of the dozen ways in which a file can be damaged
        if file.exists():
            raise UserError(f"{file}: cannot be read as weights; delete it, and it is downloaded anew") from error
        why = " ".join(str(error).split())
        raise UserError(
            f"bank=published: {weights.url} cannot be downloaded ({why}); put it into {file.parent} (TORCH_HOME)"
        ) from error
    try:
        for name in [name for name in state if _current_name(name) != name]:
            state[_current_name(name)] = state.pop(name)  # and not a new dict: this one also holds versions
        module.load_state_dict(state, strict=False, assign=True)
        tensors = {name: tensor.detach() for name, tensor in named_tensors(module)}
        missing = [name for name, tensor in tensors.items() if tensor.is_meta]
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(f"{file}: does not hold weights of network={network}: {_one_line(error)}") from error
    if missing:
        raise UserError(f"{file}: does not hold weights of network={network}: {missing[0]} is missing")
    return tensors


def _current_name(name: str) -> str:
    """densenet's files are older than its code, and say norm.1 for norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()

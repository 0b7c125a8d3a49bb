"""The body of a network: all of it but its last linear layer."""

import copy
from dataclasses import dataclass

from torch import nn

from raydistill.networks.initialisers import named_tensors
from raydistill.system.errors import UserError


@dataclass(frozen=True)
class Body:
    """A network that returns features, the input of the layer that was its last."""

    module: nn.Module
    """The body as a module."""
    names: frozenset[str]
    """The names of the body's tensors, which are those that they have in the whole network."""
    last: str
    """The name of the last layer in the whole network."""


def body_of(network: nn.Module) -> Body:
    """Return the body of a network.

    Raises:
        UserError: the network does not end in a linear layer.
    """
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    name, layer = next((pair for pair in reversed(leaves) if list(pair[1].parameters(False))), ("", None))
    if not isinstance(layer, nn.Linear):
        what = type(layer).__name__ if layer is not None else "no layer with weights"
        raise UserError(
            f"solver=ridge: needs a network whose last layer is linear, and that of {type(network).__name__} is "
            f"{what}; use solver=unroll or another network"
        )
    module = copy.deepcopy(network)
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    return Body(module, frozenset(dict(named_tensors(module))), name)

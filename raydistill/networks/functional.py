"""An ordinary torch network seen as a function of its weights."""

import math
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raydistill.networks.body import Body, body_of
from raydistill.networks.initialisers import Draws, named_tensors
from raydistill.networks.pure import Pure

T = TypeVar("T")


class Network:
    """A network as a function: logits [B, K] = network(weights [P], images [B, C, H, W]).

    All weights are one flat vector, in the order of the module's `named_parameters`, so that an inner step is one
    tensor operation and N networks are a matrix [N, P] under `torch.vmap`. Statistics of batch normalisation come last
    in it.

    For two classes the module has one output z, the second class's logit, and the logits are 0 and z: their
    cross-entropy is the binary cross-entropy with logits of z (Wang et al. 2018), and all else is as for more classes.

    Args:
        module: the network; its weights do not matter.
        initialiser: draws initial weights of the module; None if none are wanted.
        dtype: to compute in; weights and images are rounded to it and logits come back in theirs. None for as given.
        compile: whether what is recorded of it goes through torch's compiler.
    """

    def __init__(
        self,
        module: nn.Module,
        initialiser: Draws | None = None,
        dtype: torch.dtype | None = None,
        compile: bool = False,
    ) -> None:
        self.dtype = dtype
        self.compile = compile
        self._kept: dict[Any, Any] = {}
        self.module = module.to("meta")  # Only its structure counts: the weights are always arguments.
        self.shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(module)}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.initialiser = initialiser

    def __call__(self, weights: Tensor, images: Tensor) -> Tensor:
        """Return logits [B, K], differentiable in both arguments any number of times."""
        dtype = self.dtype or images.dtype
        with Pure():
            logits: Tensor = functional_call(self.module, self.unflatten(weights.to(dtype)), (images.to(dtype),))
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return logits.to(images.dtype)

    def features(self, weights: Tensor, images: Tensor) -> Tensor:
        """Return what the last linear layer gets of images [B, C, H, W]: features [B, F], differentiable likewise.

        Raises:
            UserError: the network has no such layer.
        """
        body = self.body()
        dtype = self.dtype or images.dtype
        own = {name: part for name, part in self.unflatten(weights.to(dtype)).items() if name in body.names}
        with Pure():
            features: Tensor = functional_call(body.module, own, (images.to(dtype),))
        return features.to(images.dtype)

    def body(self) -> Body:
        """Return the network without its last layer, made once.

        Raises:
            UserError: the network does not end in a linear layer.
        """
        if "body" not in self._kept:
            self._kept["body"] = body_of(self.module)
        body: Body = self._kept["body"]
        return body

    def keep(self, name: Any, make: Callable[[Any], T]) -> T:
        """Return `make(network)`, made once and kept as long as the network, as what was recorded of it is.

        `make` gets a weak reference: a network that refers to itself would keep its memory when it is out of use.
        """
        if name not in self._kept:
            self._kept[name] = make(weakref.proxy(self))
        kept: T = self._kept[name]
        return kept

    @property
    def num_weights(self) -> int:
        """The number of weights, P."""
        return sum(self.sizes)

    def unflatten(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the weights [P] by their names in the module's `state_dict`, as views, for its `load_state_dict`."""
        parts = weights.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def initial_weights(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` draws of initial weights, [count, P], on the generator's device."""
        if self.initialiser is None:
            raise RuntimeError("this network was made without an initialiser")
        return self.initialiser.draw(count, generator)

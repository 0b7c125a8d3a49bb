"""torchvision's classifiers as pure functions: network=torchvision:NAME.

They are used as in evaluation: no dropout, no stochastic depth, no auxiliary classifiers, and batch normalisation with
statistics that stay as published.
"""

import difflib
import logging
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from raydistill.networks.functional import Network
from raydistill.networks.initialisers import STATISTICS
from raydistill.system.errors import UserError

PREFIX = "torchvision:"
WITH_AUXILIARY = ("googlenet", "inception_v3")  # These have auxiliary classifiers, for training.
BATCH_NORM = nn.modules.batchnorm._BatchNorm


def torchvision_module(network: str, outputs: int, published: bool) -> nn.Module:
    """Return the classifier torchvision:NAME with this many outputs, for published weights or for others.

    Raises:
        UserError: there is no such classifier, or it cannot be a pure function of weights.
    """
    module = structure(network, outputs, published)
    if others := [
        name for name, _ in module.named_buffers() if not name.endswith((*STATISTICS, "num_batches_tracked"))
    ]:
        raise UserError(f"network={network}: keeps tables ({others[0]}) besides its weights; use another network")
    if not any(isinstance(m, BATCH_NORM) for m in module.modules()):
        return module
    if not published:
        raise UserError(
            f"network={network}: has batch normalisation, whose statistics are of the data it was trained on; "
            f"use weights=fixed_pretrained with bank=published, or a network without it"
        )
    logging.getLogger("raydistill").warning(
        "network=%s: its batch normalisation keeps the published statistics, they do not follow the images",
        network,
    )
    return module


def structure(network: str, outputs: int, published: bool = False) -> nn.Module:
    """Return the classifier torchvision:NAME with this many outputs, for evaluation and without memory for its weights.

    Where it is for published weights, it treats images as it did when they were trained.

    Raises:
        UserError: torchvision has no such classifier.
    """
    from torchvision import models

    name = network.removeprefix(PREFIX)
    known = models.list_models(module=models)  # This leaves out segmentation, detection and video.
    if name not in known:
        close = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "as torchvision:alexnet"
        raise UserError(f"network={network}: torchvision has no classifier of that name; {hint}")
    arguments = {"weights": None, "num_classes": outputs}
    if name in WITH_AUXILIARY:
        arguments |= {"aux_logits": False, "init_weights": False, "transform_input": published}
    try:
        with torch.device("meta"):
            module: nn.Module = models.get_model(name, **arguments)
    except NotImplementedError:  # The model computes its widths with tensors.
        with torch.random.fork_rng(devices=[]):
            module = models.get_model(name, **arguments)
    return module.to("meta").eval()


class _Recordable(TorchDispatchMode):
    """A context that raises RuntimeError for an operation that `raydistill.kernels.trace` refuses."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.is_mutable or function is torch.ops.aten.as_strided.default:
            raise RuntimeError(f"{function} writes in place")
        return function(*args, **(kwargs or {}))


def check_fits(network: Network, name: str, image_shape: tuple[int, int, int]) -> None:
    """Raise UserError unless the network takes such images; it runs without memory for its numbers."""
    if image_shape[0] != 3:
        raise UserError(f"network={name}: takes images of 3 channels, not {image_shape[0]}; set data.channels=3")
    weights = torch.empty(network.num_weights, device="meta")
    try:
        with torch.no_grad(), _Recordable():
            network(weights, torch.empty(1, *image_shape, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        size = "x".join(str(n) for n in image_shape[1:])
        raise UserError(f"network={name} does not fit images of {size} pixels: {str(error).splitlines()[0]}") from error

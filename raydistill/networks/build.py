"""Networks by name. To add one, write the module and its settings, and enter both in `NETWORKS`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from raydistill.config.distill_config import DistillConfig
from raydistill.config.network_settings import (
    AlexCifarNetSettings,
    ConvNetSettings,
    LeNetSettings,
    NetworkSettings,
    TorchvisionSettings,
)
from raydistill.networks.alexcifarnet import AlexCifarNet
from raydistill.networks.convnet import ConvNet
from raydistill.networks.functional import Network
from raydistill.networks.initialisers import Initialiser
from raydistill.networks.lenet import LeNet
from raydistill.networks.published import PublishedWeights
from raydistill.networks.torchvision_models import PREFIX, check_fits, torchvision_module
from raydistill.system.errors import UserError

Shape = tuple[int, int, int]

NETWORKS: dict[type, Callable[[Shape, int, Any], nn.Module]] = {
    LeNetSettings: lambda shape, outputs, settings: LeNet(shape, outputs),
    AlexCifarNetSettings: lambda shape, outputs, settings: AlexCifarNet(shape, outputs),
    ConvNetSettings: lambda shape, outputs, settings: ConvNet(shape, outputs, settings.width, settings.depth),
}


def build_network(config: NetworkSettings, image_shape: Shape, num_classes: int) -> Network:
    """Return the network that `config.network` describes, for images C x H x W and K classes; one output for two.

    Raises:
        UserError: it does not fit the images or the settings.
    """
    if num_classes < 2:
        raise UserError(f"dataset: has {num_classes} class; at least two are needed")
    outputs = 1 if num_classes == 2 else num_classes
    dtype = torch.bfloat16 if config.precision == "bfloat16" else None
    published = isinstance(config, DistillConfig) and config.published
    settings, name = config.network, config.network.name
    init = settings.init.name, settings.init.gain
    if isinstance(settings, TorchvisionSettings):
        module = torchvision_module(name, outputs, published)
        draws = PublishedWeights(name, module, *init) if published else Initialiser(module, *init)
        network = Network(module, draws, dtype)
        check_fits(network, name, image_shape)
        return network
    if published:
        raise UserError(f"bank=published: is for network={PREFIX}NAME; nobody publishes weights of {name}")
    try:
        module = NETWORKS[type(settings)](image_shape, outputs, settings)
    except ValueError as error:
        size = "x".join(str(n) for n in image_shape[1:])
        raise UserError(f"network={name} does not fit images of {size} pixels: {error}") from error
    return Network(module, Initialiser(module, *init), dtype)

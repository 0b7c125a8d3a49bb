"""Networks by name. To add one: write the module and enter it in `NETWORKS`."""

from collections.abc import Callable

import torch
from torch import nn

from raydistill.config import NetworkSettings
from raydistill.errors import UserError
from raydistill.networks.alexcifarnet import AlexCifarNet
from raydistill.networks.convnet import ConvNet
from raydistill.networks.functional import Network
from raydistill.networks.lenet import LeNet

Shape = tuple[int, int, int]

NETWORKS: dict[str, Callable[[Shape, int, NetworkSettings], nn.Module]] = {
    "lenet": lambda shape, classes, config: LeNet(shape, classes),
    "alexcifarnet": lambda shape, classes, config: AlexCifarNet(shape, classes),
    "convnet": lambda shape, classes, config: ConvNet(shape, classes, config.width, config.depth),
}


def build_network(config: NetworkSettings, image_shape: Shape, num_classes: int) -> Network:
    """The network that `config.network` names, for images C x H x W and K classes.

    Raises:
        UserError: there is no such network, or it does not fit the images.
    """
    if config.network not in NETWORKS:
        raise UserError(f"network={config.network}: there is no such network (there are {', '.join(NETWORKS)})")
    try:
        module = NETWORKS[config.network](image_shape, num_classes, config)
    except ValueError as error:
        size = "x".join(str(n) for n in image_shape[1:])
        raise UserError(f"network={config.network} does not fit images of {size} pixels: {error}") from error
    return Network(module, config.init, torch.bfloat16 if config.precision == "bfloat16" else None)

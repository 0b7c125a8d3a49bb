"""Networks by name. To add one: write the module and enter it in `NETWORKS`."""

from collections.abc import Callable

import torch
from torch import nn

from raydistill.config.distill_config import DistillConfig, NetworkSettings
from raydistill.networks.alexcifarnet import AlexCifarNet
from raydistill.networks.convnet import ConvNet
from raydistill.networks.functional import Network
from raydistill.networks.initialisers import Initialiser
from raydistill.networks.lenet import LeNet
from raydistill.networks.published import PublishedWeights
from raydistill.networks.torchvision_models import PREFIX, check_fits, torchvision_module
from raydistill.system.errors import UserError

Shape = tuple[int, int, int]

NETWORKS: dict[str, Callable[[Shape, int, NetworkSettings], nn.Module]] = {
    "lenet": lambda shape, outputs, config: LeNet(shape, outputs),
    "alexcifarnet": lambda shape, outputs, config: AlexCifarNet(shape, outputs),
    "convnet": lambda shape, outputs, config: ConvNet(shape, outputs, config.width, config.depth),
}


def build_network(config: NetworkSettings, image_shape: Shape, num_classes: int) -> Network:
    """The network that `config.network` names, for images C x H x W and K classes; for two classes with one output.

    Raises:
        UserError: there is no such network, or it does not fit the images or the settings.
    """
    if num_classes < 2:
        raise UserError(f"dataset: has {num_classes} class; only two or more can be told apart")
    outputs = 1 if num_classes == 2 else num_classes
    dtype = torch.bfloat16 if config.precision == "bfloat16" else None
    published = isinstance(config, DistillConfig) and config.published
    if config.network.startswith(PREFIX):
        module = torchvision_module(config.network, outputs, published)
        draws = (
            PublishedWeights(config.network, module, config.init, config.init_gain)
            if published
            else Initialiser(module, config.init, config.init_gain)
        )
        network = Network(module, draws, dtype)
        check_fits(network, config.network, image_shape)
        return network
    if config.network not in NETWORKS:
        known = ", ".join([*NETWORKS, f"{PREFIX}NAME"])
        raise UserError(f"network={config.network}: there is no such network (there are {known})")
    if published:
        raise UserError(f"bank=published: is for network={PREFIX}NAME; nobody publishes weights of {config.network}")
    try:
        module = NETWORKS[config.network](image_shape, outputs, config)
    except ValueError as error:
        size = "x".join(str(n) for n in image_shape[1:])
        raise UserError(f"network={config.network} does not fit images of {size} pixels: {error}") from error
    return Network(module, Initialiser(module, config.init, config.init_gain), dtype)

"""Networks as functions of one flat weight vector, and the distributions of their initial weights."""

from raydistill.networks.alexcifarnet import AlexCifarNet
from raydistill.networks.build import NETWORKS, build_network
from raydistill.networks.convnet import ConvNet
from raydistill.networks.functional import Network
from raydistill.networks.lenet import LeNet

__all__ = ["NETWORKS", "AlexCifarNet", "ConvNet", "LeNet", "Network", "build_network"]

"""Networks as functions of one flat weight vector, and the distributions of their initial weights."""

from raydistill.networks.build import NETWORKS, build_network
from raydistill.networks.functional import Network

__all__ = ["NETWORKS", "Network", "build_network"]

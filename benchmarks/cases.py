"""What is measured: settings, their real data, and who distils with them."""

from typing import Any

import torch
from textbook import Textbook

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, load_dataset
from raydistill.method import Distiller
from raydistill.networks import build_network

PAPER = {
    "batch_size": 1024,
    "epochs": 3,
    "outer_lr": 0.01,
    "outer": {"schedule": "constant", "clip": None, "average": 0.0},
}
MNIST = {"dataset": "mnist", "network": "lenet", "inner_lr": 0.02, **PAPER}
CIFAR = {"dataset": "parquet", "inner_lr": 0.001, "weights": "random", **PAPER}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("MNIST LeNet fixed, 1 x 1 x 3", MNIST | {"weights": "fixed", "steps": 1}),
    "a16": ("the same, population of 16", MNIST | {"weights": "fixed", "steps": 1, "population": 16}),
    "b1": ("MNIST LeNet random, 1 x 10 x 3", MNIST | {"weights": "random", "steps": 10}),
    "b4": ("the same, 4 networks", MNIST | {"weights": "random", "steps": 10, "train_nets": 4}),
    "b16": ("the same, 16 networks", MNIST | {"weights": "random", "steps": 10, "train_nets": 16}),
    "c": ("CIFAR-10 AlexCifarNet random, 1 x 10 x 3", CIFAR | {"network": "alexcifarnet", "steps": 10}),
    "d": ("CIFAR-10 ConvNet-3 random, 10 images a class, 40 steps",
          CIFAR | {"network": "convnet", "images_per_class": 10, "steps": 1, "epochs": 40}),
}  # fmt: skip


def load(name: str, cifar: str | None, **update: Any) -> tuple[DistillConfig, Dataset]:
    """The config of a case, with settings changed, and its real data."""
    settings = CASES[name][1] | update
    if settings["dataset"] == "parquet":
        settings |= {"dataset": f"parquet:{cifar}"}
    config = DistillConfig(**settings)
    return config, load_dataset(config)


def make_textbook(config: DistillConfig, data: Dataset, device: torch.device, on_device: bool) -> Textbook:
    """The textbook implementation; it loads data in eight processes, on a CPU in its own, which is faster there."""
    real = data.train.images.levels, data.train.labels
    loaders = 0 if device.type == "cpu" else 8
    return Textbook(config, real, data.mean, data.std, str(device), workers=None if on_device else loaders)


def make_ours(config: DistillConfig, data: Dataset, device: torch.device) -> Distiller:
    """Ours."""
    network = build_network(config, data.image_shape, data.num_classes)
    return Distiller(config, network, data.to(device).train, data.num_classes)

"""What tests share: small real data, a small config, where MNIST lies, and a home in which Ray asks nobody."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from raydistill.config import DistillConfig
from raydistill.data import Dataset, load_dataset

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each command in a process of its own would compile torch again
sys.dont_write_bytecode = False
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
Path(os.environ["HOME"], "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")  # else Ray asks a cloud
torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DistillConfig(dataset="digits"))


@pytest.fixture(scope="session")
def tiny_classifiers() -> None:
    """Enters tiny_norm (with batch normalisation, and published), tiny_plain and tiny_vit into torchvision's list."""
    from torch import nn
    from torchvision import models
    from torchvision.models._api import Weights, WeightsEnum, register_model
    from torchvision.models.resnet import BasicBlock

    def residual(norm, num_classes):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), norm(4), nn.ReLU(inplace=True), BasicBlock(4, 4, norm_layer=norm),
            nn.Dropout(), nn.Conv2d(4, 6, 1), nn.Hardswish(inplace=True), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(6, num_classes),
        )  # fmt: skip

    class TinyWeights(WeightsEnum):
        DEFAULT = Weights("https://download.pytorch.org/models/tiny-01234567.pth", None, {"categories": ["a", "b"]})

    def tiny_norm(*, weights: TinyWeights | None = None, num_classes: int) -> nn.Module:
        return residual(nn.BatchNorm2d, num_classes)

    makers = {
        "tiny_norm": tiny_norm,
        "tiny_plain": lambda num_classes, weights=None: residual(nn.Identity, num_classes),
        "tiny_vit": lambda num_classes, weights=None: models.VisionTransformer(
            8, 4, 1, 2, 8, 16, num_classes=num_classes
        ),
    }
    for name, make in makers.items():
        make.__module__ = f"torchvision.models.{name}"  # by which torchvision tells classifiers from the rest
        register_model(name)(make)


@pytest.fixture
def small() -> DistillConfig:
    """Seconds, not minutes."""
    return DistillConfig(iterations=6, eval_every=2, batch_size=32, steps=2, epochs=2, val_nets=2, test_nets=2)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, CIFAR-10 and USPS; tests that need it are skipped where it is not."""
    places = [os.environ.get("RAYDISTILL_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "MNIST" / "raw").is_dir():
            return Path(place)
    pytest.skip("needs real MNIST: set RAYDISTILL_DATA to a folder that holds MNIST/raw")

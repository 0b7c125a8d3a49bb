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

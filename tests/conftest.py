"""What tests share: small real data, a small config, a Ray, where MNIST lies, and a home in which Ray asks nobody.

Where pytest-xdist is installed, `pytest` without a file or folder runs the tests in several processes; the tests of a
file stay in one.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, load_dataset

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each command in a process of its own would compile torch again
sys.dont_write_bytecode = False
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"  # read when Hugging Face's library is imported
os.environ.update(RAY_worker_niceness="0")  # Ray leaves trials only what other processes do not use: nothing here
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # raydistill sets it too late for tests that import Ray first
os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
Path(os.environ["HOME"], "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")  # else Ray asks a cloud
PROCESSES = len(os.sched_getaffinity(0)) + 2  # that share the tests: much of the time each waits for other programs
HOSTS = {"namespaces", "ray_hosts"}  # fixtures that make several hosts
RAY = {"local_ray", "places", "two_gpus"}  # fixtures that start Ray on this machine
SHARING = "PYTEST_XDIST_WORKER" in os.environ  # in one of several processes
if SHARING:
    os.environ["OMP_NUM_THREADS"] = "1"  # processes with more threads than cores are many times slower
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # commands have two threads, and other tests run beside them
torch.set_num_threads(1 if SHARING else min(2, len(os.sched_getaffinity(0))))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share all tests among processes, unless somebody looks into them (-s, --pdb) or says how many (-n)."""
    options = config.option
    if SHARING:  # this is one of the processes, which start no others
        return
    if getattr(options, "numprocesses", 0) is None and config.args_source is config.ArgsSource.TESTPATHS:
        alone = options.usepdb or options.capture == "no" or options.markexpr == "gpu"
        alone = alone or bool(getattr(options, "cov_source", None))  # pytest-cov has looked for -n already
        options.numprocesses = 0 if alone else PROCESSES
    if getattr(options, "numprocesses", 0) and options.dist == "no":
        options.dist, options.loadscopereorder = "loadfile", False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use; of several processes each takes the files first that last longest."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for mark, names in (("cluster", HOSTS), ("ray", RAY | HOSTS), ("slow", RAY | HOSTS)):
            if fixtures & names:
                item.add_marker(mark)
    if SHARING:
        longest = [{i.path for i in items if i.get_closest_marker(mark)} for mark in ("cluster", "ray", "slow")]
        items.sort(key=lambda item: [item.path not in paths for paths in longest])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m gpu` imports no other tests, which want what a machine with a GPU may lack."""
    elsewhere = collection_path.suffix == ".py" and collection_path.parent.name != "gpu"
    return True if elsewhere and config.getoption("markexpr") == "gpu" else None


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
    config = DistillConfig(iterations=6, eval_every=2, batch_size=32, steps=2, epochs=2, val_nets=2, test_nets=2)
    return config.changed({"choice.steps": 3, "choice.nets": 1})


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local Ray for the tests of a file."""
    from raydistill.cluster.connect import ray_running
    from raydistill.config.sweep_sections import Resources

    with ray_running(Resources()):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, CIFAR-10 and USPS; tests that need it are skipped where it is not."""
    places = [os.environ.get("RAYDISTILL_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "MNIST" / "raw").is_dir():
            return Path(place)
    pytest.skip("needs real MNIST: set RAYDISTILL_DATA to a folder that holds MNIST/raw")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on loopback, in a process of its own so that Ray's workers and killed drivers reach it: its URL."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    script = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        server = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL)
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.communicate()


@pytest.fixture
def s3(s3_server: str, request: pytest.FixtureRequest) -> str:
    """The address of a folder in a bucket of the test's own, without what follows: `join` adds names to it."""
    import pyarrow.fs

    query = f"endpoint_override={s3_server}&region=us-east-1"
    bucket = "b" + str(abs(hash(request.node.nodeid)))
    host = s3_server.removeprefix("http://")
    maker = pyarrow.fs.S3FileSystem(
        endpoint_override=host, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    maker.create_dir(bucket)
    return f"s3://{bucket}/exp?{query}"

"""Training a bank of networks, several at once, as `raydistill pretrain` does."""

import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import flat
from raydistill.data import Dataset, identity, is_same, load_dataset
from raydistill.data.augment import augmented, check_transforms, draw
from raydistill.evaluation.accuracy import score
from raydistill.kernels.recorded import recorded
from raydistill.method.adam import Adam
from raydistill.method.rng import named_generator
from raydistill.method.unroll import losses_and_gradient
from raydistill.networks import Network, build_network
from raydistill.runs.watcher import PretrainWatcher
from raydistill.store.bank import (
    BankManifest,
    bank_table,
    network_files,
    read_manifest,
    write_bank_file,
    write_manifest,
)
from raydistill.store.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from raydistill.store.manifest import MANIFEST
from raydistill.system.device import pick_device, use_precision
from raydistill.system.errors import Stopped, UserError
from raydistill.system.lock import is_empty, own_folder
from raydistill.system.storage import at_home, read_json, remove_partial, write_json

SETTINGS = "pretrain.json"  # A file in a bank's folder: the settings of the bank.
DATA = "data.json"  # A file in a bank's folder: the fingerprint of the real data.


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    *,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    watchers: tuple[PretrainWatcher, ...] = (),
) -> BankManifest:
    """Train a bank of networks into a folder, or resume one that was stopped; the bits are the same either way.

    Args:
        config: how many networks of which kind, on what.
        out: the folder.
        data: the real data, where they are loaded already.
        data_dir: the folder of downloaded data sets.
        stop: called before each step; True ends the call, to resume later from the last whole epoch.
        watchers: what the progress is reported to.

    Returns:
        The bank's manifest, with the mean accuracies of its networks.

    Raises:
        UserError: the settings do not fit the data, or the folder holds something else or is in use.
        Stopped: `stop` returned True; what was done is kept.
    """
    folder = Path(at_home(out))
    with nullcontext() if (folder / MANIFEST).exists() else own_folder(folder):  # A whole bank is only read.
        begin_folder(config, folder)
        if (folder / MANIFEST).exists():
            return read_manifest(folder)[0]
        for watcher in watchers:
            watcher.on_start(config)
        try:
            return _train(config, folder, data or load_dataset(config, data_dir), stop, watchers)
        finally:
            for watcher in watchers:
                watcher.on_end()


def _train(
    config: PretrainConfig,
    folder: Path,
    data: Dataset,
    stop: Callable[[], bool],
    watchers: tuple[PretrainWatcher, ...],
) -> BankManifest:
    """Train the networks that `folder` lacks, and make it a bank."""
    _check_data(data, folder)
    trainer = BankTrainer(config, data)
    start = time.perf_counter()
    for first in range(0, config.nets, config.chunk):
        path = network_files(folder, first // config.chunk)
        if not path.exists():
            networks = trainer.train_chunk(first, folder, stop, watchers)
            accuracies = (score(trainer.network, networks, s)[0] for s in (trainer.data.val, trainer.data.test))
            write_bank_file(path, bank_table(networks, *accuracies))
            (folder / CHECKPOINT).unlink(missing_ok=True)
    about = {
        "seconds": time.perf_counter() - start,  # Those of the last call, where it resumed a stopped one.
        **identity(trainer.data),
        "versions": {name: version(name) for name in ("raydistill", "torch", "pyarrow")},
    }
    return write_manifest(folder, config, trainer.data, trainer.network, about)


def begin_folder(config: PretrainConfig, folder: Path) -> None:
    """Write the settings into a new folder, or check those of a folder that was begun.

    Raises:
        UserError: the folder holds a bank of other settings, or something else.
    """
    settings = config.model_dump(mode="json")
    path = folder / SETTINGS
    if path.exists():
        old = read_json(str(path))
        if not isinstance(old, dict):
            raise UserError(f"{path}: does not hold the settings of a bank")
        before = flat(old)
        changed = [name for name, value in flat(settings).items() if name not in before or before[name] != value]
        if changed:
            raise UserError(f"{folder}: holds a bank begun with another {', '.join(changed)}; choose another --out")
        remove_partial(folder)
    elif not is_empty(folder):
        raise UserError(f"{folder}: is not an empty folder, and holds no bank to resume; choose another --out")
    else:
        write_json(str(path), settings)


def _check_data(data: Dataset, folder: Path) -> None:
    """Write the fingerprint of the data into the folder, or raise UserError where the data are no longer the same."""
    path = folder / DATA
    if not path.exists():
        write_json(str(path), identity(data))
    elif not is_same(data, read_json(str(path))):
        raise UserError(f"{folder}: was begun with other data than dataset={data.name} holds now; choose another --out")


class BankTrainer:
    """Networks that are trained at once, each from its own initial weights and on its own order of the images.

    They are trained by Adam, with a rate that falls to zero as a cosine. All randomness follows from (seed, network,
    epoch), so that any chunk of networks can be trained at any time.

    Args:
        config: the settings.
        data: the real data.

    Raises:
        UserError: the settings do not fit the data.
    """

    def __init__(self, config: PretrainConfig, data: Dataset) -> None:
        self.config = config
        self.device = pick_device(config.device)
        use_precision(config.precision, self.device, config.deterministic)
        self.data = data.to(self.device)
        self.network: Network = build_network(config, data.image_shape, data.num_classes)
        check_transforms(config.data.augment, data.image_shape, "data.augment")
        if config.batch_size > len(data.train):
            raise UserError(f"batch_size={config.batch_size}: there are only {len(data.train)} training images")
        self.gradient = recorded(functools.partial(_gradient, self.network))
        self.steps = len(data.train) // config.batch_size  # A smaller last batch is left out.

    def train_chunk(
        self,
        first: int,
        folder: Path,
        stop: Callable[[], bool] = lambda: False,
        watchers: tuple[PretrainWatcher, ...] = (),
    ) -> Tensor:
        """Train networks `first`, `first` + 1, ... of one chunk, and return their weights [N, W].

        Raises:
            Stopped: `stop` returned True; the checkpoint in `folder` holds what was done.
        """
        members = range(first, min(first + self.config.chunk, self.config.nets))
        streams = [named_generator(self.config.seed, f"network {i}") for i in members]
        weights = torch.cat([self.network.initial_weights(1, stream) for stream in streams]).to(self.device)
        adam = Adam([weights], betas=(0.9, 0.999))
        done = _load(folder, first, weights, adam)
        for epoch in range(done, self.config.epochs):
            loss = self._epoch(epoch, members, weights, adam, stop)
            state = {"first": first, "epoch": epoch + 1, "weights": weights, "adam": adam.state_dict()}
            save_checkpoint(state, folder)
            for watcher in watchers:
                watcher.on_epoch(first, epoch + 1, loss)
        return weights

    def _epoch(self, epoch: int, members: range, weights: Tensor, adam: Adam, stop: Callable[[], bool]) -> float:
        """Train all networks for one pass over the images, and return their mean loss."""
        size = self.steps * self.config.batch_size
        streams = [named_generator(self.config.seed, f"order {i} {epoch}", self.device) for i in members]
        orders = [torch.randperm(len(self.data.train), generator=g, device=self.device)[:size] for g in streams]
        changes = named_generator(self.config.seed, f"augment {members.start} {epoch}", self.device)
        losses = torch.zeros(len(members), device=self.device)
        for step, index in enumerate(torch.stack(orders).split(self.config.batch_size, 1)):
            if stop():  # The next call repeats this epoch.
                names = f"networks {members.start + 1} to {members.stop}"
                raise Stopped(f"stopped at epoch {epoch} of {self.config.epochs} of {names}")
            draws = draw(index.numel(), changes)
            images = augmented(self.data.train.images[index.flatten()], self.config.data.augment, draws)
            images = images.unflatten(0, index.shape)
            loss, gradient = self.gradient(weights, images, self.data.train.labels[index])
            progress = (epoch * self.steps + step) / (self.config.epochs * self.steps)
            rate = self.config.lr * 0.5 * (1 + math.cos(math.pi * progress))
            adam.step([gradient], [torch.full((len(members),), rate, device=self.device)])
            losses += loss
        return losses.mean().item() / self.steps


def _gradient(network: Network, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses [N] and gradients [N, W], each network with its own images [N, B, C, H, W] and labels [N, B]."""
    losses, gradient = losses_and_gradient(network, weights[:, None], images, labels, each_set=0, differentiable=False)
    return losses[:, 0], gradient[:, 0]


def _load(folder: Path, first: int, weights: Tensor, adam: Adam) -> int:
    """Put the state of a chunk that was stopped in place, if there is one; return the epochs done."""
    if not (folder / CHECKPOINT).exists():
        return 0
    state = load_checkpoint(folder)
    if state["first"] != first:
        return 0
    weights.copy_(state["weights"])
    adam.load_state_dict(state["adam"])
    return int(state["epoch"])

"""Dataset distillation as it is usually written: what `speed.py` compares with.

Plain autograd through the networks as torch has them, a DataLoader, one network at a time, torch.optim: the structure
of Wang et al. 2018's published code, in few lines and for current torch. The hypergradient is the "store" way: a graph
for each inner step, walked back one by one.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from raydistill.config.distill_config import DistillConfig


def lenet() -> nn.Module:
    """LeNet for MNIST: ReLU, then pool."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def alexcifarnet() -> nn.Module:
    """The network of the CIFAR-10 experiments of Wang et al. 2018."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.LocalResponseNorm(4, 0.001 / 9, 0.75, 1),
        nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), nn.LocalResponseNorm(4, 0.001 / 9, 0.75, 1), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(4096, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU(), nn.Linear(192, 10),
    )  # fmt: skip


def convnet(channels: int = 3, size: int = 32, width: int = 128) -> nn.Module:
    """ConvNet of depth 3 for images of `channels` x `size` x `size`."""
    blocks = [
        nn.Sequential(nn.Conv2d(c, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2))
        for c in (channels, width, width)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(width * (size // 8) ** 2, 10))


NETWORKS = {"lenet": lenet, "alexcifarnet": alexcifarnet, "convnet": convnet}


class Pixels(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: one by one, from bytes, normalised when asked for."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> None:
        self.images, self.labels, self.mean, self.std = images, labels, mean[:, None, None], std[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i].float().div(255).sub(self.mean).div(self.std), int(self.labels[i])


class Textbook:
    """Learns images and step sizes. Settings as in `DistillConfig`; the networks drawn are `train_nets` a step.

    Args:
        config: the settings.
        data: real images, uint8 [M, C, H, W], and their classes.
        mean: of each channel, to normalise with.
        std: likewise.
        device: where to compute.
        workers: processes that load data; None where they lie on the device, normalised beforehand.
        module: another network than the one of `NETWORKS`.
    """

    def __init__(
        self,
        config: DistillConfig,
        data: tuple[Tensor, Tensor],
        mean: Tensor,
        std: Tensor,
        device: str,
        workers: int | None,
        module: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.module = (module or NETWORKS[config.network.name]()).to(device)
        count = 10 * config.images_per_class
        self.labels = torch.arange(10, device=device).repeat_interleave(config.images_per_class)
        shape = (count, *data[0].shape[1:])
        self.images = [torch.randn(shape, device=device).requires_grad_() for _ in range(config.steps)]
        raw = torch.tensor(config.inner_lr).expm1().log().expand(config.epochs, config.steps)
        self.raw_rates = raw.clone().to(device).requires_grad_()
        self.optimizer = torch.optim.Adam([*self.images, self.raw_rates], lr=config.outer_lr, betas=(0.5, 0.999))
        real = Pixels(*data, mean, std)
        self.batches = self._from_the_device(real) if workers is None else self._from_a_loader(real, workers)
        self.fixed = self.fresh_weights()

    def _from_a_loader(self, real: Pixels, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            real, self.config.batch_size, shuffle=True, drop_last=True, num_workers=workers,
            pin_memory=self.device != "cpu", persistent_workers=workers > 0,
        )  # fmt: skip
        while True:
            for images, labels in loader:
                yield images.to(self.device), labels.to(self.device)

    def _from_the_device(self, real: Pixels) -> Iterator[tuple[Tensor, Tensor]]:
        images = real.images.to(self.device).float().div_(255)
        images.sub_(real.mean.to(self.device)).div_(real.std.to(self.device))
        labels = real.labels.to(self.device)

        def forever() -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                index = torch.randint(len(labels), (self.config.batch_size,), device=self.device)
                yield images[index], labels[index]

        return forever()

    def fresh_weights(self) -> dict[str, Tensor]:
        """Xavier weights, zero biases, gains of one."""
        for name, parameter in self.module.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.constant_(parameter, float(name.endswith("weight")))
        return {name: p.detach().clone().requires_grad_() for name, p in self.module.named_parameters()}

    def step(self) -> None:
        """One outer iteration."""
        images, labels = next(self.batches)
        self.optimizer.zero_grad()
        for _ in range(self.config.train_nets):
            weights = self.fixed if self.config.weights == "fixed" else self.fresh_weights()
            _, gradients = self.hypergradient(weights, images, labels)
            for leaf, gradient in zip([*self.images, self.raw_rates], gradients, strict=True):
                share = gradient / self.config.train_nets
                leaf.grad = share if leaf.grad is None else leaf.grad + share
        self.optimizer.step()

    def hypergradient(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The loss on the real batch, and its gradients for each step's images and for all raw rates."""
        names, w, graphs = list(weights), list(weights.values()), []
        rates = F.softplus(self.raw_rates.detach())
        for e in range(self.config.epochs):
            for s in range(self.config.steps):
                rate = rates[e, s].clone().requires_grad_()
                logits = functional_call(self.module, dict(zip(names, w, strict=True)), (self.images[s],))
                gradients = torch.autograd.grad(F.cross_entropy(logits, self.labels), w, create_graph=True)
                graphs.append((e, s, w, rate, gradients))
                w = [(p - rate * g).detach().requires_grad_() for p, g in zip(w, gradients, strict=True)]
        loss = F.cross_entropy(functional_call(self.module, dict(zip(names, w, strict=True)), (images,)), labels)
        dw = torch.autograd.grad(loss, w)
        d_images = [torch.zeros_like(x) for x in self.images]
        d_rates = torch.zeros_like(rates)
        for e, s, w, rate, gradients in reversed(graphs):
            moved = [-rate * g for g in gradients]
            dx, d_rate, *hw = torch.autograd.grad(moved, [self.images[s], rate, *w], dw)
            d_images[s] += dx
            d_rates[e, s] = d_rate
            dw = [a + b for a, b in zip(dw, hw, strict=True)]
        return loss.detach(), [*d_images, d_rates * torch.sigmoid(self.raw_rates.detach())]

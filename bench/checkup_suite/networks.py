"""The architectures that faults are planted in, with running statistics that have come to rest."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUM_CLASSES = 4


class Residual(nn.Module):
    """A small residual network: a stem, two blocks with identity shortcuts, one that halves the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.block1 = _Block(16, 16, 1)
        self.block2 = _Block(16, 24, 2)
        self.block3 = _Block(24, 24, 1)
        self.head = nn.Linear(24, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        x = torch.relu(self.bn(self.conv(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def plain() -> nn.Module:
    """Return a small VGG-like network: convolutions with batch norm in a row."""
    layers: list[nn.Module] = []
    for channels, out in ((3, 12), (12, 20), (20, 20)):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, NUM_CLASSES))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "plain": plain}


def images(number: int, size: tuple[int, int] = (24, 20), seed: int = 0) -> Tensor:
    """Return images (N, 3, H, W) with a mean and a contrast of their own, as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, 3, *size, generator=generator)
    contrast = 0.5 + torch.rand(number, 1, 1, 1, generator=generator)
    return noise * contrast + 0.4 * torch.randn(number, 1, 1, 1, generator=generator)


def labels_of(pictures: Tensor) -> Tensor:
    """Return labels that a network can learn: quarters of the pictures' mean red minus blue."""
    contrast = (pictures[:, 0] - pictures[:, 2]).flatten(1)[:, :40].mean(1)
    edges = torch.tensor([-0.1, 0.0, 0.1])
    return torch.bucketize(contrast, edges)


def loader(number: int = 128, batch_size: int = 32, seed: int = 1, **settings: object) -> DataLoader:
    """Return shuffled batches of pictures and labels, the same every time."""
    pictures = images(number, seed=seed)
    order = torch.Generator().manual_seed(seed)
    data = TensorDataset(pictures, labels_of(pictures))
    arguments = {"shuffle": True, "generator": order, **settings}
    return DataLoader(data, batch_size, **arguments)  # type: ignore[arg-type]


def grown(name: str) -> nn.Module:
    """Return an architecture, trained a little, whose running statistics are mature; in training mode."""
    return copy.deepcopy(_grown(name))


@cache
def _grown(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[name]()
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        pictures = images(512, seed=2)
        labels = labels_of(pictures)
        for step in range(80):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 - step / 80)
            chosen = torch.randint(0, 512, (32,))
            loss = nn.functional.cross_entropy(model(pictures[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for _ in range(60):
                model(pictures[torch.randint(0, 512, (32,))])
    return model

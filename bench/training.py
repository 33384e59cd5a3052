"""The training loop, beside the bare steps of PyTorch.

ResNet-18 (torchvision) for ten classes, batches of 32, SGD with momentum and weight decay, one thread. After
each step of ours a bare one is taken, of another network with the same weights at first, on the same images:
so both see the same machine. The numbers are ratios of what an epoch's steps took together, ours over bare,
median and range of seven runs.

The images lie in memory as tensors, or are ``photos`` that are opened, mirrored and shifted by the same code.
The bare loop is forward, cross-entropy, backward and step (fused, as ours is), with PyTorch's DataLoader in
front of it for photos. Ours also logs every step, seeds every image and step, checks every image and loss,
and watches the percentiles of all layers in the first ten steps and every tenth one; a long run watches about
sixty.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

import bench.fold_networks  # noqa: F401  (makes torchvision importable)
from bench.clock import markdown
from convscope.data import augmented, load_data
from convscope.train import NoProgress, train

BATCH, RUNS = 32, 7
SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
SIDES = {64: 100, 224: 16}  # of images in memory, in pixels: steps of an epoch
PHOTO_SIDE, PHOTO_STEPS = 96, 40

Seconds = tuple[float, float]
"""Wall time and processor time."""


@dataclass(frozen=True)
class Sets:
    """Images to train on."""

    train: Any
    validation: Any
    classes: Sequence[str]
    name: str
    mirrors: bool = True


def table() -> str:
    """Return the ratios for images of several sizes."""
    rows: list[tuple[str, ...]] = []
    for side, steps in SIDES.items():
        sets = in_memory(steps * BATCH, side)
        rows.append(
            _row(f"in memory, {side} × {side}", steps, sets, list(DataLoader(sets.train, BATCH)), "none")
        )
    sets = few_photos(PHOTO_STEPS * BATCH, 2)
    loader = DataLoader(Varied(sets.train), BATCH, shuffle=True)
    rows.append(_row(f"photos, {PHOTO_SIDE} × {PHOTO_SIDE}", PHOTO_STEPS, sets, loader, "shift"))
    return markdown(("images", "steps", "bare, images a second", "processor time", "time"), rows)


def _row(name: str, steps: int, sets: Sets, batches: Any, augment: str) -> tuple[str, ...]:
    runs = [loops(sets, batches, augment) for _ in range(RUNS)]
    speed = BATCH / median(bare[0] for run in runs for _, bare in run)
    ratios = (
        [sum(ours[kind] for ours, _ in run) / sum(bare[kind] for _, bare in run) for run in runs]
        for kind in (1, 0)
    )
    return (name, str(steps), f"{speed:.1f}", *map(spread, ratios))


def network() -> nn.Module:
    """Return the network, with the same weights every time."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=10)
    return model


def in_memory(num_images: int, side: int) -> Sets:
    """Return random images that lie in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, 3, side, side, generator=generator)
    samples = list(zip(images, torch.randint(10, (num_images,), generator=generator).tolist(), strict=True))
    return Sets(samples, samples[:2], [str(label) for label in range(10)], "random")


def few_photos(num_train: int, num_validation: int) -> Sets:
    """Return some of the photos, evenly spaced."""
    data = load_data("photos", size=(PHOTO_SIDE, PHOTO_SIDE))

    def some(images: Any, count: int) -> Subset[Any]:
        return Subset(images, [place * len(images) // count for place in range(count)])

    return Sets(some(data.train, num_train), some(data.validation, num_validation), data.classes, data.name)


class Varied(Dataset[tuple[Tensor, int]]):
    """Images mirrored and shifted, as ours are."""

    def __init__(self, images: Any) -> None:
        self.images, self.generator = images, torch.Generator()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return augmented(image[None], self.generator)[0], label


class _Beside(NoProgress):
    """After each of our steps it takes a bare one, and keeps what both took.

    Args:
        bare: takes a step with PyTorch alone.
    """

    def __init__(self, bare: Callable[[], object]) -> None:
        self.bare = bare
        self.taken: list[tuple[Seconds, Seconds]] = []

    def start(self, *_: int) -> None:
        """Begin to measure."""
        self.mark = now()

    def step(self, _: object) -> None:
        """Measure our step, then a bare one."""
        ours = since(self.mark)
        began = now()
        self.bare()
        self.taken.append((ours, since(began)))
        self.mark = now()


def loops(sets: Sets, batches: Any, augment: str) -> list[tuple[Seconds, Seconds]]:
    """Return what each step of an epoch took, ours and bare."""
    beside = _Beside(bare_steps(batches))
    our_run(sets, epochs=1, augment=augment, progress=beside)
    return beside.taken


def our_run(sets: Sets, **settings: Any) -> None:
    """Train with ours, in a folder that goes away again."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            network(), sets, out=f"{folder}/run", batch_size=BATCH, learning_rate=SGD["lr"],
            momentum=SGD["momentum"], weight_decay=SGD["weight_decay"], device="cpu", **settings,
        )  # fmt: skip


def bare_steps(batches: Any) -> Callable[[], None]:
    """Return what takes one step after another with PyTorch alone."""
    model, coming = network().train(), iter(batches)
    optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=True)

    def step() -> None:
        images, labels = next(coming)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def now() -> Seconds:
    """Return the present times."""
    return time.perf_counter(), time.process_time()


def since(began: Seconds) -> Seconds:
    """Return the times that have passed."""
    wall, processor = now()
    return wall - began[0], processor - began[1]


def spread(ratios: Sequence[float]) -> str:
    """Return the median and the range of ratios."""
    return f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"

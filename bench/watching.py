"""Watching a training loop, beside the same loop unwatched.

ResNet-18, batches of 32 random images, SGD with momentum and cross-entropy. A run is ten steps, watched and
unwatched in turn, step by step; the number is the processor time of the watched ones over that of the others,
median and range of seven runs. One step in ten is looked at closely, as it is unless told otherwise; the last
column looks at every step.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.clock import markdown
from convscope.checkup import TrainingLog
from convscope.networks import load
from convscope.probe.events import listening

BATCH, ROUNDS, STEPS = 32, 7, 10
SIZES = (64, 112)


def table() -> str:
    """Return the overhead for each size of image."""
    rows = []
    for size in SIZES:
        seconds, usual = _ratios(size, 10)
        _, close = _ratios(size, 1)
        rows.append((f"{size} × {size}", f"{seconds:.2f}", _text(usual), _text(close)))
    return markdown(("images", "seconds a step", "watched / unwatched", "all steps looked at closely"), rows)


def _text(ratios: list[float]) -> str:
    return f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"


def _ratios(size: int, every: int) -> tuple[float, list[float]]:
    """Seconds of an unwatched step, and the ratio of the two in every run."""
    torch.manual_seed(0)
    model = load("torchvision:resnet18")[0].train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, size, size), torch.randint(0, 10, (BATCH,))
    log = TrainingLog(model, (optimizer,), every, None)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def watching() -> AbstractContextManager[None]:
        return listening(model, [optimizer], (_BatchNorm,), log.ledger)

    for around in (watching, nullcontext):
        for _ in range(STEPS):  # the first ten, all of which are looked at
            _timed(step, around)
    taken, ratios = [], []
    for _ in range(ROUNDS):
        pairs = [(_timed(step, watching), _timed(step, nullcontext)) for _ in range(STEPS)]
        watched, plain = map(sum, zip(*pairs, strict=True))
        taken.append(plain / STEPS)
        ratios.append(watched / plain)
    return median(taken), ratios


def _timed(step: Callable[[], None], around: Callable[[], AbstractContextManager[None]]) -> float:
    with around():
        started = time.process_time()
        step()
        return time.process_time() - started

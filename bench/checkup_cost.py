"""What a check-up costs: seconds without data, passes over data, and the share of a training step."""

import contextlib
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import convscope as cs
from bench.checkup_suite.healthy import network
from bench.clock import markdown
from bench.fold_networks import untrained

_ROUNDS = 7


def table() -> str:
    """Return the measured costs."""
    rows = [
        ("static, ResNet-50, modules and optimizer: processor time", f"{_static(None):.3f} s"),
        (
            "static, ResNet-50, data flow too (input shape given): processor time",
            f"{_static((2, 3, 224, 224)):.2f} s",
        ),
        ("few batches, ResNet-18: forward passes of the data", f"{_passes('resnet18'):.2f}"),
        ("few batches, EfficientNet-B0: forward passes of the data", f"{_passes('efficientnet_b0'):.2f}"),
    ]
    return markdown(("what", "cost"), rows)


def _static(shape: tuple[int, ...] | None) -> float:
    """Median seconds of processor time of a check-up of ResNet-50 without data."""
    model = untrained("tv/resnet50")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    taken = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        cs.checkup(model, shape, optimizer=optimizer)
        taken.append(time.process_time() - started)
    return median(taken)


def _passes(name: str) -> float:
    """Samples that ran forward through the network, over samples of the data."""
    subject = network(name)
    with _counting(subject.model) as counts:
        cs.checkup(subject.model, subject.data)
    return sum(counts) / sum(len(labels) for _, labels in subject.data)


@contextlib.contextmanager
def _counting(model: nn.Module) -> Iterator[list[int]]:
    """Samples of each forward call with real tensors; recording runs on simulated ones."""
    counts: list[int] = []

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(inputs[0], Tensor) and not isinstance(inputs[0], FakeTensor):
            counts.append(len(inputs[0]))

    hook = model.register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        hook.remove()

"""How fast two networks run side by side at test time."""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved
from convscope.fold.ledger import Speed, Timing
from convscope.fold.trials import Trial, described

_WARM_UP = 2
_METHOD = (
    "evaluation mode without gradients, on the whole batch given; both networks run in turn in one process, "
    "after two passes to warm up; median and quartiles over the repeats"
)


def measure_speed(before: nn.Module, after: nn.Module, inputs: Any, repeats: int = 20) -> Speed:
    """Return the time of a forward pass of two networks on the same inputs.

    The passes alternate, so that whatever else the machine does falls on both, and the speed-up is the
    median of the ratios of neighbours, which a slow moment of the machine doesn't move. Both networks come
    back as they were.

    Args:
        before: a network.
        after: the network to compare it with.
        inputs: a tensor, a tuple or dict of tensors, or a shape; shapes are filled with random numbers.
        repeats: timed passes of each, at least 2.

    Raises:
        ConvscopeError: fewer than two repeats.
    """
    if repeats < 2:
        raise ConvscopeError(f"repeats={repeats}", "at least 2", "give more, 20 for instance")
    tensor = next(
        (t for t in (*before.parameters(), *before.buffers()) if t.is_floating_point()), torch.zeros(1)
    )
    trial = Trial(described(inputs, tensor.dtype), None)
    args, kwargs = trial.call(tensor.device)
    wait = _waiter(tensor.device)
    with ExitStack() as kept, torch.no_grad():
        for network in (before, after):
            kept.enter_context(preserved(network))
            network.eval()
        pairs = [
            tuple(_timed(network, args, kwargs, wait) for network in (before, after))
            for _ in range(_WARM_UP + repeats)
        ][_WARM_UP:]
    low, median, high = _quartiles([first / second for first, second in pairs])
    return Speed(
        before=_timing([first for first, _ in pairs]),
        after=_timing([second for _, second in pairs]),
        speedup=median,
        speedup_low=low,
        speedup_high=high,
        repeats=repeats,
        device=str(tensor.device),
        num_threads=torch.get_num_threads(),
        input_shape=trial.shapes(),
        method=_METHOD,
    )


def _timed(network: nn.Module, args: Any, kwargs: Any, wait: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    network(*args, **kwargs)
    wait()
    return time.perf_counter() - start


def _waiter(device: torch.device) -> Callable[[], object]:
    """What waits until a device has done its work."""
    return torch.accelerator.synchronize if device.type != "cpu" else lambda: None


def _timing(seconds: list[float]) -> Timing:
    low, median, high = _quartiles(seconds)
    return Timing(median, low, high)


def _quartiles(numbers: list[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, median, high

"""How fast do networks run side by side at test time: before, after, and a twin without any batch norm?"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from convscope.core.collector import collector_at_rest
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved
from convscope.fold.ledger import Speed, Timing
from convscope.fold.proof.trials import Trial, described
from convscope.fold.recorded.flow import path_of
from convscope.fold.twin import is_batch_norm, twin_without_batch_norm
from convscope.tape import device_of, record
from convscope.tape.batch_norms import normalises_samples

_WARM_UP = 2
_METHOD = (
    "evaluation mode without gradients, on the whole batch given; the networks run in turn in one process, "
    "in an order that rotates, after two passes to warm up; median and quartiles over the repeats, of the "
    "times and of the ratios of neighbours"
)


def measure_speed(before: nn.Module, after: nn.Module, inputs: Any, repeats: int = 20) -> Speed:
    """Return the time of a forward pass of two networks, and of a twin that never had a batch norm.

    The passes alternate, so that whatever else the machine does falls on all of them, and a ratio is the
    median of the ratios of neighbours, which a slow moment of the machine doesn't move. The twin is
    ``before`` with every batch norm taken out; it has the weights of ``after``, so that its activations are
    of the same size: numbers that are nearly zero would slow it down. Both networks come back as they were.

    Args:
        before: a network.
        after: the network to compare it with, such as the same one folded.
        inputs: a tensor, a tuple or dict of tensors, or a shape; shapes are filled with random numbers.
        repeats: timed passes of each, at least 2.

    Returns:
        :class:`~convscope.fold.ledger.Speed`, in seconds per pass; ``twin`` is None, and ``no_twin`` says
        why, where ``before`` has no batch norm or one that can't be taken out.

    Raises:
        ConvscopeError: fewer than two repeats.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> speed = measure_speed(net, nn.Sequential(net[0]), (2, 3, 16, 16), repeats=2)
        >>> speed.repeats, speed.twin is not None, speed.no_twin
        (2, True, '')
    """
    if repeats < 2:
        raise ConvscopeError(f"repeats={repeats}", "at least 2", "give more, 20 for instance")
    tensor = next(
        (t for t in (*before.parameters(), *before.buffers()) if t.is_floating_point()), torch.zeros(1)
    )
    trial = Trial(described(inputs, tensor.dtype), None)
    call = trial.call(tensor.device)
    wait = _waiter(tensor.device)
    twin, no_twin = _twin(before, after, inputs, lambda network: _timed(network, call, wait))
    networks = (before, after) if twin is None else (before, after, twin)
    seconds = _in_turn(networks, lambda network: _timed(network, call, wait), repeats)
    gain = _quartiles([first / second for first, second in zip(seconds[0], seconds[1], strict=True)])
    cost = _quartiles([ours / bare for ours, bare in zip(*seconds[1:], strict=True)]) if twin else None
    return Speed(
        before=_timing(seconds[0]),
        after=_timing(seconds[1]),
        speedup=gain[1],
        speedup_low=gain[0],
        speedup_high=gain[2],
        repeats=repeats,
        device=str(tensor.device),
        num_threads=torch.get_num_threads(),
        input_shape=trial.shapes(),
        method=_METHOD,
        twin=_timing(seconds[2]) if twin else None,
        ratio_to_twin=cost and cost[1],
        ratio_to_twin_low=cost and cost[0],
        ratio_to_twin_high=cost and cost[2],
        no_twin=no_twin,
    )


def _twin(
    before: nn.Module, after: nn.Module, inputs: Any, run: Callable[[nn.Module], object]
) -> tuple[nn.Module | None, str]:
    """The twin, or None and why there is none."""
    try:
        twin = twin_without_batch_norm(before)
        called = _called_as_function(before, inputs)
        if called:
            return None, f"its own code calls batch norm as a function ({called})"
        twin.load_state_dict(_common(after.state_dict(), twin.state_dict()), strict=False)
        with torch.no_grad():
            run(twin)
    except ConvscopeError as error:
        return None, error.given
    except Exception as error:  # the network's own code
        return None, f"the network fails without its batch norms ({type(error).__name__}: {error})"
    return twin, ""


def _called_as_function(model: nn.Module, inputs: Any) -> str:
    """The address of a batch norm call that belongs to no batch norm module; "" if there is none."""
    tape = record(model, inputs, device=device_of(model))
    for call in tape.calls:
        if call.op == "batch_norm" and normalises_samples(tape, call):
            path = "" if call.module is None else path_of(tape.modules[call.module])
            if not is_batch_norm(model.get_submodule(path)):
                return str(call.address)
    return ""


def _common(numbers: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that have their place in a network with tensors ``own``."""
    shapes = {name: tensor.shape for name, tensor in own.items() if isinstance(tensor, Tensor)}
    return {
        name: tensor
        for name, tensor in numbers.items()
        if isinstance(tensor, Tensor) and shapes.get(name) == tensor.shape
    }


def _in_turn(
    networks: Sequence[nn.Module], timed: Callable[[nn.Module], float], repeats: int
) -> list[list[float]]:
    """Seconds of each network's passes: one of each a round, a round begins where the last one ended."""
    seconds: list[list[float]] = [[] for _ in networks]
    with ExitStack() as kept, torch.no_grad(), collector_at_rest():
        for network in networks:
            kept.enter_context(preserved(network))
            network.eval()
        for turn in range(_WARM_UP + repeats):
            for place in range(len(networks)):
                number = (turn + place) % len(networks)
                seconds[number].append(timed(networks[number]))
    return [passes[_WARM_UP:] for passes in seconds]


def _timed(network: nn.Module, call: Any, wait: Callable[[], object]) -> float:
    # Fresh inputs: an activation that works in place may be the first thing that a network does.
    args, kwargs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, call)
    wait()
    start = time.perf_counter()
    network(*args, **kwargs)
    wait()
    return time.perf_counter() - start


def _waiter(device: torch.device) -> Callable[[], object]:
    """What waits until a device has done its work."""
    return (lambda: torch.accelerator.synchronize(device)) if device.type != "cpu" else lambda: None


def _timing(seconds: list[float]) -> Timing:
    low, median, high = _quartiles(seconds)
    return Timing(median, low, high)


def _quartiles(numbers: list[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, median, high

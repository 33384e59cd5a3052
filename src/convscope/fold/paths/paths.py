"""Which paths a network whose control flow depends on data can take, as far as recordings find them.

Truth values are turned one by one in simulations (:mod:`convscope.fold.paths.turns`); with few of them, and
nothing else that depends on data, this finds every path. Numbers (``x.item()``) have more answers than can be
tried: a few are, and the network runs for real on a few small inputs; whatever that finds, other paths may
exist.

Limits: control flow that depends on shapes, on randomness or on Python's own state isn't looked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold.paths.turns import Turns
from convscope.fold.proof.trials import described, given, random_like
from convscope.tape import Tape, device_of

_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Path:
    """One way through a network.

    Attributes:
        tape: its recording.
        open_at: how many operator calls run before unseen paths may branch off, at the first question whose
            other answers weren't all followed; None if none can. Those calls are the same on them.
    """

    tape: Tape
    open_at: int | None = None


@dataclass(frozen=True)
class Paths:
    """The paths that were found.

    Attributes:
        recorded: the distinct ones, first the one with no answer turned (unless the network fails there).
        doubt: why there may be others; empty if there are none.
        notes: what was tried and failed, one sentence each.
    """

    recorded: tuple[Path, ...]
    doubt: str = ""
    notes: tuple[str, ...] = ()

    @property
    def tapes(self) -> tuple[Tape, ...]:
        """The recordings."""
        return tuple(path.tape for path in self.recorded)

    @property
    def complete(self) -> bool:
        """Whether these are all paths: only truth values decide, and each was answered both ways."""
        return not self.doubt


def recorded_paths(model: nn.Module, inputs: Any, *, most: int = 16) -> Paths:
    """Return the paths that a network takes in inference, found with few recordings.

    A network without questions is recorded once. One that reads numbers out of tensors, or can't be
    simulated, is recorded on at most two samples, simulated and for real.

    Args:
        model: any network that can be recorded; it stays as it is.
        inputs: a tensor, a tuple or dict of tensors, or a shape.
        most: how many recordings on simulated tensors a search may take.

    Raises:
        ConvscopeError: no path can be recorded; the error is that of the one with no answer turned.

    Example:
        >>> class Gated(nn.Module):
        ...     def forward(self, x):
        ...         return x.relu() if x.sum() > 0 else x * 2
        >>> paths = recorded_paths(Gated(), (2, 3))
        >>> paths.complete, [tape.calls[-1].op for tape in paths.tapes]
        (True, ['mul', 'relu'])
    """
    device = device_of(model)
    turns = Turns(model, device, most)
    turns.simulate(inputs)
    if turns.needs_data:
        for first, others in _small(inputs, _floating_dtype(model)):
            again = Turns(model, device, most)
            again.simulate(first)
            again.run_for_real(first, *others)
            if again.any_recorded:
                turns = again
                break
    recorded = tuple(Path(tape, at) for tape, at in turns.distinct())
    return Paths(recorded, turns.doubt(), turns.notes())


def _small(inputs: Any, dtype: torch.dtype) -> Iterator[tuple[Any, list[Any]]]:
    """Yield the inputs and random ones like them: at most two samples, then as many as given."""
    try:
        arguments = described(inputs, dtype)
    except ConvscopeError:  # what they lack was said better when they were recorded
        return
    for own, *like in zip(given(arguments), *(random_like(arguments, seed) for seed in _SEEDS), strict=True):
        first, *others = (
            args or kwargs for args, kwargs in (t.call(torch.device("cpu")) for t in (own, *like))
        )
        yield first, others


def _floating_dtype(model: nn.Module) -> torch.dtype:
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())

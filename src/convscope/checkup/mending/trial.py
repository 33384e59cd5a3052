"""Trying new statistics on data that they weren't estimated from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE, residuals
from convscope.checkup.measuring.batches import batches_of
from convscope.checkup.measuring.criterion import Criterion
from convscope.checkup.measuring.describe import Roster
from convscope.checkup.measuring.passes import Passes
from convscope.checkup.mending.workshop import Reread
from convscope.probe import probing
from convscope.tape import Tape

_EVERY = 5
"""Of so many batches, one is held out."""


@dataclass(frozen=True, eq=False)
class Part:
    """Every fifth batch, or the others; read as often as it is asked for.

    Attributes:
        data: all batches.
        num_batches: how many these are.
        held_out: whether this is every fifth.
    """

    data: Reread
    num_batches: int
    held_out: bool

    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(self.data):
            if (number % _EVERY == _EVERY - 1) == self.held_out:
                yield item

    def __len__(self) -> int:
        held_out = self.num_batches // _EVERY
        return held_out if self.held_out else self.num_batches - held_out


@dataclass(frozen=True, eq=False)
class Split:
    """What statistics are estimated from, and what they are tried on.

    Attributes:
        estimated: batches to estimate from.
        tried: batches to try on; the same ones if there are fewer than five.
        share: how much of the batches is estimated from.
        data: all of them.
    """

    estimated: Reread | Part
    tried: Reread | Part
    share: float
    data: Reread

    @property
    def is_held_out(self) -> bool:
        """Whether what statistics are tried on is other data than they were estimated from."""
        return self.tried is not self.estimated

    @property
    def words(self) -> str:
        """What they are tried on, in words."""
        if self.is_held_out and not self.data.is_alike:
            return "every fifth batch (not held out: each reading comes in another order)"
        if self.is_held_out:
            return "held-out batches (every fifth)"
        return f"the batches they come from (none held out of fewer than {_EVERY})"


def split(data: Reread, num_batches: int) -> Split:
    """Hold every fifth batch out, if there are five."""
    data.note_order()
    if num_batches < _EVERY:
        return Split(data, data, 1.0, data)
    estimated, tried = (Part(data, num_batches, held_out) for held_out in (False, True))
    return Split(estimated, tried, len(estimated) / num_batches, data)


def distance(model: nn.Module, data: Reread | Part, tape: Tape | None) -> float:
    """Return how far layers' running statistics are from those of their inputs in evaluation mode.

    Root mean square over channels and layers of the larger residual, in units of its tolerance; infinite if
    any isn't a number. Layers that are frozen don't count.

    Args:
        model: comes back as it was.
        data: batches.
        tape: the network's recording, if there is one.
    """
    with probing(model) as probe:
        passes = Passes(probe, Roster(model), Criterion(None), tape)
        batches = batches_of(model, data)
        while True:
            with probe.paused():
                batch = next(batches, None)
            if batch is None:
                break
            passes.as_at_test_time(batch)
        found = [residuals(norm, norm.population) for norm in passes.norms() if not norm.frozen]
    squares = [
        _mean_square(each.mean.abs() / MEAN_TOLERANCE, each.variance.abs() / VARIANCE_TOLERANCE)
        for each in found
        if each is not None
    ]
    total = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
    return total if math.isfinite(total) else math.inf


def _mean_square(mean_C: torch.Tensor, variance_C: torch.Tensor) -> float:
    return float(torch.maximum(mean_C, variance_C).square().mean())

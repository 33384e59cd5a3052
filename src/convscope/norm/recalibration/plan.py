"""How statistics are to be estimated anew, beyond what everybody has to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class Progress:
    """Where a run over the data is, after a batch.

    Attributes:
        number: which pass over the data, from 1; 0 for the held-out data.
        purpose: what the pass is for, in a few words.
        num_batches: batches of this pass so far, on this process.
        total_batches: batches of a whole pass, where the data has a length and no limit is set.
        num_samples: samples of this pass so far, on this process.
    """

    number: int
    purpose: str
    num_batches: int
    total_batches: int | None
    num_samples: int


@dataclass(frozen=True)
class RecalibrationPlan:
    """The settings of :func:`convscope.norm.recalibrate` that seldom change.

    Attributes:
        forward: ``forward(model, batch)`` → outputs, for models that aren't simply called with the first
            part of a batch. It is given the network without a DataParallel or compiler wrapper, and
            whatever the data yields.
        max_samples: once a pass has seen so many samples, on this process, it reads no further batch.
        window: how many of the latest samples, at least, layers normalise by in the first pass; 1 for each
            batch by itself. Of 16, 32, 64, 128 and 256, residuals on digits at batch size 2 were smallest
            with 64.
        group: the process group to pool over; None for the default one, where ``torch.distributed`` is
            initialised. A group of one process stays by itself.
        progress: is told the course of the run after every batch.
    """

    forward: Callable[[nn.Module, Any], Any] | None = None
    max_samples: int | None = None
    window: int = 64
    group: Any = None
    progress: Callable[[Progress], object] | None = None

    def __post_init__(self) -> None:
        for name in ("max_samples", "window"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConvscopeError(
                    f"{name}={value!r}", "a whole number from 1", "leave it out for the default"
                )

"""What the layers of a run put out over training: percentiles, gathered by the check-up's watch.

The notes' internal covariate shift, on a run's own page: with and without batch norm.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain

from torch import nn
from torch.optim import Optimizer

from convscope.checkup.observed.run import Percentiles
from convscope.checkup.watching.log import TrainingLog
from convscope.checkup.watching.watch import watch
from convscope.core.errors import ConvscopeError

_SAMPLES, _LEAST_EVERY = 60, 10


class Watched:
    """The percentiles of a run in progress, epoch by epoch.

    Args:
        log: of this session; None if the network can't be watched.
        known: those of earlier sessions, epoch by epoch.
        first_step: optimizer steps before this session.
    """

    def __init__(
        self, log: TrainingLog | None, known: Iterable[Sequence[Percentiles]], first_step: int
    ) -> None:
        self._log, self._first_step, self._told = log, first_step, first_step - 1
        if log is not None:
            log.ledger.percentiles.channels.update({row.path: row.channel for rows in known for row in rows})

    def news(self) -> list[Percentiles]:
        """Return the percentiles of each layer's outputs since the last call; steps are those of the run."""
        if self._log is None:
            return []
        rows = []
        for row in self._log.percentiles:
            steps = [step + self._first_step for step in row.steps]
            new = [index for index, step in enumerate(steps) if step > self._told]
            if row.of == "output" and new:
                rows.append(_picked(replace(row, steps=tuple(steps)), new))
        self._told = max((row.steps[-1] for row in rows), default=self._told)
        return rows


def _picked(row: Percentiles, indices: Sequence[int]) -> Percentiles:
    return replace(
        row,
        steps=tuple(row.steps[index] for index in indices),
        low=tuple(row.low[index] for index in indices),
        median=tuple(row.median[index] for index in indices),
        high=tuple(row.high[index] for index in indices),
    )


@contextmanager
def watched(
    model: nn.Module, optimizer: Optimizer, steps: range, known: Iterable[Sequence[Percentiles]]
) -> Iterator[Watched]:
    """Watch a training for its percentiles, at about sixty of its steps and its first ten.

    A step that is looked at takes some percent longer; so in short runs it is every tenth one at most.

    Args:
        model: the network that trains.
        optimizer: that trains it.
        steps: of this session.
        known: percentiles of the run's earlier sessions, epoch by epoch.
    """
    with ExitStack() as stack:
        log = None
        with suppress(ConvscopeError):  # a compiled network: a run without percentiles is a run all the same
            every = max(_LEAST_EVERY, steps.stop // _SAMPLES)
            log = stack.enter_context(watch(model, optimizer, every=every))
        yield Watched(log, known, steps.start)


def joined(epochs: Iterable[Sequence[Percentiles]]) -> tuple[Percentiles, ...]:
    """Return the percentiles of each layer as one row, from those of the epochs in order."""
    by_layer: dict[tuple[str, str], list[Percentiles]] = {}
    for row in chain.from_iterable(epochs):
        by_layer.setdefault((row.path, row.of), []).append(row)
    return tuple(
        replace(
            parts[0],
            steps=tuple(chain.from_iterable(part.steps for part in parts)),
            low=tuple(chain.from_iterable(part.low for part in parts)),
            median=tuple(chain.from_iterable(part.median for part in parts)),
            high=tuple(chain.from_iterable(part.high for part in parts)),
        )
        for parts in by_layer.values()
    )

"""What the layers of a run put out over training: percentiles, gathered by the check-up's watch.

The notes' internal covariate shift, on a run's own page: with and without batch norm.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.checkup.observed.run import Percentiles
from convscope.checkup.watching.layers import watched_kinds
from convscope.checkup.watching.percentiles import PercentileLog
from convscope.core.errors import ConvscopeError
from convscope.probe.events import listening
from convscope.probe.passes import LayerCall, Listener
from convscope.probe.surroundings import is_compiled
from convscope.tape.accepted import require_eager

_SAMPLES, _LEAST_EVERY, _CLOSELY = 60, 10, 10
_BATCH_NORMS: tuple[type[nn.Module], ...] = (_BatchNorm,)
_OTHER_NORMS: tuple[type[nn.Module], ...] = (nn.GroupNorm, _InstanceNorm)


class Watched:
    """The percentiles of a run in progress, at about sixty of its steps and its first ten.

    A step that is looked at takes some percent longer; so in short runs it is every tenth one at most. The
    others carry no hook at all. Which steps are looked at follows from the run, not from its interruptions.

    Args:
        model: the network that trains. Of one with batch norms, what these put out is looked at; else of one
            with group or instance norms, what those do; else what convolutions and linear layers do. Of a
            compiled one nothing.
        total_steps: of the whole run.
        known: percentiles of the run's earlier sessions, epoch by epoch.
        first_step: optimizer steps before this session.
    """

    def __init__(
        self, model: nn.Module, total_steps: int, known: Iterable[Sequence[Percentiles]], first_step: int
    ) -> None:
        self._model, self._layers = model, _watched_layers(model)
        self._every, self._told = max(_LEAST_EVERY, total_steps // _SAMPLES), first_step - 1
        self._log = PercentileLog()
        self._log.channels.update({row.path: row.channel for rows in known for row in rows})

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Look at the step that runs in the block, if it is one of those that are looked at.

        Args:
            number: optimizer steps before it.
        """
        if not self._layers or not (number < _CLOSELY or number % self._every == 0):
            yield
            return
        with listening(self._model, (), self._layers, _Outputs(self._log)):
            yield
        self._log.step_ends(number)

    def news(self) -> list[Percentiles]:
        """Return the percentiles of each layer's outputs since the last call."""
        rows = []
        for row in self._log.found():
            new = [index for index, step in enumerate(row.steps) if step > self._told]
            if new:
                rows.append(_picked(row, new))
        self._told = max((row.steps[-1] for row in rows), default=self._told)
        return rows


class _Outputs(Listener):
    """Hands on what layers put out in training."""

    def __init__(self, log: PercentileLog) -> None:
        self._log = log

    def layer_ends(self, call: LayerCall, output: Any) -> None:
        """A layer has run."""
        trains = call.within.trains and call.layer.training and not call.recomputed
        if trains and isinstance(output, Tensor):
            self._log.add(call.path, call.layer, "output", output)


def _watched_layers(model: nn.Module) -> tuple[type[nn.Module], ...]:
    """Classes of the layers that are looked at; none where the network's code can't be seen."""
    if is_compiled(model):
        return ()
    try:
        require_eager(model)
    except ConvscopeError:
        return ()
    for kinds in (_BATCH_NORMS, _OTHER_NORMS):
        if any(isinstance(module, kinds) for module in model.modules()):
            return kinds
    return watched_kinds(model)


def _picked(row: Percentiles, indices: Sequence[int]) -> Percentiles:
    return replace(
        row,
        steps=tuple(row.steps[index] for index in indices),
        low=tuple(row.low[index] for index in indices),
        median=tuple(row.median[index] for index in indices),
        high=tuple(row.high[index] for index in indices),
    )


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

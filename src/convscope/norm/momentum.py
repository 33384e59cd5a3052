"""Running averages that are updated several times in an optimizer step.

With gradients accumulated over k micro-batches, or a block that activation checkpointing runs a second time
in backward (k = 2), batch norms see k batches per optimizer step, and their running averages forget k times
as fast as their momentum says. With the weight m' of each update such that the past keeps as much of the
average as with one update,

    (1 − m')ᵏ = 1 − m,        m' = 1 − (1 − m)^(1/k),

k equal batches move them exactly as far as one.

Not covered: within a step the last micro-batch weighs more than the first, (1 − m)^(1/k − 1) times (1.11 at
most for m = 0.1), and variances stay those within micro-batches.
"""

import math
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.norm.freezing.freeze import is_frozen
from convscope.norm.selecting import Only, select

_DECLARED = "updates_per_step"

Reason = Literal["cumulative", "unmoved", "frozen"]
"""Why a layer keeps its momentum: averages over all batches weigh k alike batches like one; instance norms
without a momentum don't move; frozen layers don't either."""


def corrected_momentum(momentum: float, updates_per_step: int) -> float:
    """Return 1 − (1 − m)^(1/k): the momentum with which k updates move an average as far as one with m.

    Args:
        momentum: m, the weight of the new value, from 0 to 1.
        updates_per_step: k, at least 1: micro-batches per optimizer step, times 2 under checkpointing.

    Raises:
        ConvscopeError: m isn't a number from 0 to 1, or k isn't a whole number from 1.

    Example:
        >>> round(corrected_momentum(0.1, 2), 4)
        0.0513
    """
    _check_updates(updates_per_step)
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 <= momentum <= 1:
        raise ConvscopeError(
            f"momentum {momentum!r}",
            "a number from 0 to 1, the weight of the new value",
            "a cumulative average (None) needs no correction"
            if momentum is None
            else "correct the layer first",
        )
    return 1.0 if momentum == 1 else -math.expm1(math.log1p(-momentum) / updates_per_step)


@dataclass(frozen=True)
class CorrectedLayer:
    """A layer's momentum, ``before`` and ``after``, by the layer's (first) path."""

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class UncorrectedLayer:
    """A layer that keeps its momentum, by its (first) path, and the :data:`Reason`."""

    path: str
    reason: Reason


@dataclass(frozen=True)
class MomentumCorrection(Result):
    """What :func:`correct_momentum` did; ``.undo()``, or the end of its ``with`` block, takes it back.

    Attributes:
        updates_per_step: k.
        layers: the layers whose momentum has changed.
        kept: layers that keep theirs, and why.
    """

    updates_per_step: int
    layers: tuple[CorrectedLayer, ...]
    kept: tuple[UncorrectedLayer, ...]
    _modules: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    _declared: tuple[int, ...] = field(default=(), repr=False, compare=False)
    not_in_json: ClassVar[frozenset[str]] = frozenset({"_modules", "_declared"})

    def undo(self) -> None:
        """Give every layer the momentum that it had; the running averages stay as they have become."""
        for layer, module, before in zip(self.layers, self._modules, self._declared, strict=True):
            module.momentum = layer.before
            _declare(module, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def correct_momentum(model: nn.Module, updates_per_step: int, only: Only = None) -> MomentumCorrection:
    """Let running averages move once per optimizer step's worth, though they are updated k times in it.

    Sets ``momentum`` of all batch norms, and of instance norms with running statistics, to
    :func:`corrected_momentum`, in place. A second call corrects the corrected momentum: 2 for checkpointing
    after 4 for accumulation is right and equals 8 at once. Convscope's own batch norms don't update when
    checkpointing runs them again, so count only the accumulation for them.

    The count stays on the layer as its attribute ``updates_per_step``, by which a check-up of a training run
    knows that it is accounted for.

    Args:
        model: a network, or one layer.
        updates_per_step: k, at least 1: forward passes in training mode per optimizer step.
        only: the part that is updated so often, such as the checkpointed blocks: a module path such as
            ``"layer1"``, a pattern such as ``"layer[12]"``, or several of them; None for the whole network.

    Returns:
        Every layer's momentum before and after, with ``.undo()``; a context manager which undoes at its end.

    Raises:
        ConvscopeError: k isn't a whole number from 1; ``only`` names nothing, or nothing with running
            statistics; a layer's momentum isn't from 0 to 1. Nothing is changed then.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(4, momentum=0.19))
        >>> with correct_momentum(net, updates_per_step=2):
        ...     round(net[0].momentum, 6)
        0.1
        >>> net[0].momentum
        0.19
    """
    _check_updates(updates_per_step)
    found = select(model, only, _keeps_averages, "layer with running statistics")
    kept = {path: reason for path, layer in found.items() if (reason := _reason(layer)) is not None}
    moved = {path: layer for path, layer in found.items() if path not in kept}
    layers = tuple(_corrected(path, layer, updates_per_step) for path, layer in moved.items())
    declared = tuple(declared_updates(module) for module in moved.values())
    for layer, module, before in zip(layers, moved.values(), declared, strict=True):
        module.momentum = layer.after  # type: ignore[assignment]
        _declare(module, before * updates_per_step)
    reasons = tuple(UncorrectedLayer(path, reason) for path, reason in kept.items())
    return MomentumCorrection(updates_per_step, layers, reasons, tuple(moved.values()), declared)


def declared_updates(layer: nn.Module) -> int:
    """Return how many updates in an optimizer step a layer's momentum is meant for: 1 unless corrected.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(4))
        >>> _ = correct_momentum(net, 4), correct_momentum(net, 2)
        >>> declared_updates(net[0])
        8
    """
    return int(getattr(layer, _DECLARED, 1))


def _declare(layer: nn.Module, updates_per_step: int) -> None:
    """Leave a layer's count with it; 1, as every layer has, leaves no attribute."""
    if updates_per_step != 1:
        setattr(layer, _DECLARED, updates_per_step)
    elif _DECLARED in vars(layer):
        delattr(layer, _DECLARED)


def _keeps_averages(layer: nn.Module) -> bool:
    return isinstance(layer, _NormBase) and layer.track_running_stats and layer.running_mean is not None


def _reason(layer: Any) -> Reason | None:
    if is_frozen(layer):
        return "frozen"
    if layer.momentum is None:
        counts = isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None
        return "cumulative" if counts else "unmoved"
    return None


def _corrected(path: str, layer: Any, updates_per_step: int) -> CorrectedLayer:
    try:
        return CorrectedLayer(path, layer.momentum, corrected_momentum(layer.momentum, updates_per_step))
    except ConvscopeError as error:
        where = f"{error.given} of {type(layer).__name__} at {path!r}"
        raise ConvscopeError(where, error.expected, error.action) from None


def _check_updates(updates_per_step: int) -> None:
    whole = isinstance(updates_per_step, int) and not isinstance(updates_per_step, bool)
    if not whole or updates_per_step < 1:
        raise ConvscopeError(
            f"updates_per_step={updates_per_step!r}",
            "a whole number from 1",
            "count the forward passes per optimizer step",
        )

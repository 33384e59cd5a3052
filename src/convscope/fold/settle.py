"""The largest set of planned folds whose proof passes; whatever fails is taken back, with the reason."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold.apply import apply
from convscope.fold.plan import Fold
from convscope.fold.proof import THRESHOLDS, Comparison, NotComparable, Place, compare
from convscope.fold.trials import in_dtype
from convscope.tape import device_of, record

Folds = tuple[Fold, ...]


@dataclass
class Settled:
    """What is left of a plan after its proof.

    Attributes:
        folds: those that are proved.
        comparison: their proof, or None if there are none.
        dtype: in which it was computed.
        threshold: that it passed.
        undone: why a fold was taken back, by its address.
    """

    folds: Folds
    comparison: Comparison | None = None
    dtype: torch.dtype = torch.float64
    threshold: float = THRESHOLDS[torch.float64]
    undone: dict[str, str] = field(default_factory=dict)


def settle(model: nn.Module, folds: Folds, inputs: Any) -> Settled:
    """Prove folds on copies of a network, and return those that pass.

    In float64; in float32 if the network doesn't run in float64. If the proof of all folds fails, halves are
    proved on their own, down to single folds, so that one bad fold doesn't cost the others.

    Args:
        model: the network; it stays as it is.
        folds: what is planned.
        inputs: as :func:`convscope.fold.trials.described` returns them.
    """
    if not folds:
        return Settled(())
    failure = ""
    for dtype, threshold in THRESHOLDS.items():
        prover = _Prover(model, inputs, dtype, threshold)
        try:
            kept, comparison = prover.largest(folds)
        except NotComparable as error:
            failure = failure or str(error)
            continue
        return Settled(kept, comparison, dtype, prover.threshold, prover.undone)
    reason = f"the fold can't be proved: the network fails on the inputs that were tried ({failure})"
    return Settled((), undone={fold.address: reason for fold in folds})


class _Prover:
    """Tries sets of folds on fresh copies in one dtype."""

    def __init__(self, model: nn.Module, inputs: Any, dtype: torch.dtype, threshold: float) -> None:
        self.model, self.inputs, self.dtype, self.threshold = model, inputs, dtype, threshold
        self.undone: dict[str, str] = {}
        self._checked_precision = False

    def largest(self, folds: Folds) -> tuple[Folds, Comparison | None]:
        """Return a largest set that passes, and its comparison."""
        if not folds:
            return (), None
        comparison = self._passes(folds)
        if comparison.within(self.threshold):
            return folds, comparison
        groups = _indivisible(folds)
        if len(groups) == 1:
            self.undone.update({fold.address: _undone(comparison) for fold in folds})
            return (), None
        middle = len(groups) // 2
        left, shown = self.largest(_joined(groups[:middle]))
        right, other = self.largest(_joined(groups[middle:]))
        if not left or not right:
            return (left, shown) if left else (right, other)
        both = self._passes(left + right)
        if both.within(self.threshold):
            return left + right, both
        self.undone.update({fold.address: f"{_undone(both)}, though not on its own" for fold in right})
        return left, shown

    def _passes(self, folds: Folds) -> Comparison:
        twin = copied(self.model).to(self.dtype)
        places = tuple(Place(f.address, str(f.call.address), f.layer.operator_once_folded) for f in folds)
        comparison = compare(twin, lambda network: apply(network, folds), self.inputs, places, self.dtype)
        if not comparison.within(self.threshold) and not self._checked_precision:
            self._checked_precision = True
            if self._loses_digits():
                self.threshold = max(THRESHOLDS.values())
        return comparison

    def _loses_digits(self) -> bool:
        """Whether the network's own code goes through a narrower dtype, whatever its weights have."""
        try:
            twin = copied(self.model).to(self.dtype)
            tape = record(twin, in_dtype(self.inputs, self.dtype), device=device_of(twin))
        except ConvscopeError:
            return False
        made = (tape.values[v].dtype for call in tape.calls for v in call.outputs if v is not None)
        return any(dtype.is_floating_point and dtype.itemsize < self.dtype.itemsize for dtype in made)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network.

    Raises:
        ConvscopeError: it can't be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConvscopeError(
            f"a {type(model).__name__} that can't be copied ({reason})",
            "a model that copy.deepcopy takes",
            "take out tensors that are neither parameters nor buffers, or load the model anew",
        ) from error


def _indivisible(folds: Folds) -> list[Folds]:
    """Folds by the module that is replaced: all of its calls or none."""
    groups: dict[str, list[Fold]] = {}
    for fold in folds:
        groups.setdefault(fold.shell.path, []).append(fold)
    return [tuple(group) for group in groups.values()]


def _joined(groups: list[Folds]) -> Folds:
    return tuple(fold for group in groups for fold in group)


def _undone(comparison: Comparison) -> str:
    if comparison.failure:
        return f"taken back: with it the network fails ({comparison.failure})"
    worst = max((comparison.max_error, *comparison.at.values()))
    return f"taken back: with it values differ by {worst:.1e} of their size"

"""Forward passes in training mode that train nothing, and still move running statistics.

Before the first optimizer step those are dummy passes, such as of a summary or a profiler; afterwards, if
gradients are off, evaluations in training mode.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.observed.run import StrayCalls
from convscope.checkup.watching.layers import copied_statistics, is_moving, version
from convscope.core.address import ROOT
from convscope.probe.events import ForwardPass, tensors_in

_MANY = 64

_Before = dict[str, tuple[_BatchNorm, float, Tensor, Tensor]]
_Moves = dict[str, tuple[Tensor, Tensor]]


class Strays:
    """Sums up how far a kind of forward passes has moved running statistics."""

    def __init__(self) -> None:
        self.count = self.constant = self.before_steps = 0
        self._moves: _Moves = {}

    def add(self, moves: _Moves, constant: bool, steps: int) -> None:
        """Add one forward pass: by layer, Δ running mean / σ and the logarithm of the variance's growth."""
        if not self.count:
            self.before_steps = steps
        self.count += 1
        self.constant += constant
        for path, (mean_C, variance_C) in moves.items():
            if path in self._moves:
                mean_C, variance_C = mean_C + self._moves[path][0], variance_C + self._moves[path][1]
            self._moves[path] = mean_C, variance_C

    def found(self) -> StrayCalls:
        """Return what was found."""
        shifts = {path: float(mean_C.abs().max()) for path, (mean_C, _) in self._moves.items()}
        if not shifts:
            return StrayCalls()
        worst = max(shifts, key=lambda path: shifts[path])
        growth = max(float(variance_C.abs().max()) for _, variance_C in self._moves.values())
        return StrayCalls(
            self.count, tuple(shifts), shifts[worst], growth, worst, self.constant, self.before_steps
        )


@dataclass(eq=False)
class _Candidate:
    """A forward pass that may turn out to be a stray one."""

    before: _Before
    constant: bool
    moves: _Moves | None = None


class StrayFinder:
    """Tells stray forward passes from those that train.

    Attributes:
        evaluations, dummies: what was found so far.
    """

    def __init__(self) -> None:
        self.evaluations, self.dummies = Strays(), Strays()
        self._candidates: dict[int, _Candidate] = {}
        self._early = Strays()

    def begins(self, run: ForwardPass, norms: dict[str, _BatchNorm], steps: int) -> None:
        """Take down running statistics before a forward pass that may be a stray one."""
        if run.recomputed or run.will_be_recomputed or (steps and run.has_gradients):
            return
        before = {
            path: (norm, version(norm), *copies)
            for path, norm in norms.items()
            if run.path in (ROOT, path) or path.startswith(f"{run.path}.")
            if is_moving(norm) and (copies := copied_statistics(norm)) is not None
        }
        if before:
            self._candidates[run.number] = _Candidate(before, not steps and _is_constant(run))

    def ends(self, run: ForwardPass, steps: int) -> None:
        """See what a forward pass has moved."""
        candidate = self._candidates.get(run.number)
        if candidate is None or candidate.moves is not None:
            return
        candidate.moves = _moves(candidate.before)
        candidate.before = {}
        known = not run.has_gradients or not candidate.moves
        if known:
            del self._candidates[run.number]
        if known and candidate.moves:
            kind = self.evaluations if steps else self._early
            kind.add(candidate.moves, candidate.constant, steps)
        if run.has_gradients and not run.can_be_reached:
            self._candidates.pop(run.number, None)  # its outputs are in no container that we know
        if len(self._candidates) > _MANY:
            self._dummy(next(iter(self._candidates)))

    def reached(self, run: ForwardPass) -> None:
        """A backward pass has come: the forward pass trains."""
        self._candidates.pop(run.number, None)

    def first_step(self) -> None:
        """What has been forgotten by the first step was a dummy."""
        for number in tuple(self._candidates):
            self._dummy(number)
        self.dummies, self._early = _joined(self.dummies, self._early), Strays()

    def finish(self, trains: bool) -> tuple[StrayCalls, StrayCalls]:
        """Return evaluations and dummies.

        Args:
            trains: whether any step was made. Where none was, passes without gradients are evaluations.
        """
        if trains or not self._early.count:
            return self.evaluations.found(), self.dummies.found()
        return _joined(self._early, self.evaluations).found(), self.dummies.found()

    def _dummy(self, number: int) -> None:
        candidate = self._candidates.pop(number)
        if candidate.moves:
            self.dummies.add(candidate.moves, candidate.constant, 0)


def _joined(first: Strays, second: Strays) -> Strays:
    joined = Strays()
    joined.count, joined.constant = first.count + second.count, first.constant + second.constant
    joined.before_steps = first.before_steps
    joined._moves = dict(first._moves)
    for path, moves in second._moves.items():
        known = joined._moves.get(path)
        joined._moves[path] = moves if known is None else (known[0] + moves[0], known[1] + moves[1])
    return joined


@torch.no_grad()
def _moves(before: _Before) -> _Moves:
    """How far each layer that has moved did: in standard deviations, and the log of its variance's growth."""
    moves = {}
    for path, (norm, then, mean_C, variance_C) in before.items():
        if version(norm) == then or norm.running_mean is None or norm.running_var is None:
            continue
        scale_C = variance_C.double() + norm.eps
        shift_C = (norm.running_mean.double() - mean_C.double()) / scale_C.sqrt()
        growth_C = ((norm.running_var.double() + norm.eps) / scale_C).log()
        moves[path] = shift_C, growth_C
    return moves


def _is_constant(run: ForwardPass) -> bool:
    """Whether the first tensor of the inputs has one value throughout."""
    first = next(tensors_in(run.inputs), None)
    return first is not None and first.numel() > 0 and bool((first == first.reshape(-1)[0]).all())

"""Forward passes in training mode that train nothing, and still move running statistics.

Before the first optimizer step those are dummy passes, such as of a summary or a profiler; afterwards they
are evaluations in training mode, or a part of the training (:mod:`~convscope.checkup.watching.stray_sums`).
A pass with gradients is known to be a stray one when two steps have been made without a backward pass having
come to it.
"""

from dataclasses import dataclass, field

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.observed.run import StrayCalls
from convscope.checkup.watching.layers import copied_statistics, is_moving, version
from convscope.checkup.watching.stray_sums import Moves, Strays, Timeline
from convscope.core.address import ROOT
from convscope.probe.passes import ForwardPass
from convscope.probe.surroundings import tensors_in

_MANY = 64  # passes whose moves are kept until it is known whether they train
_MOST = 4096  # passes that are kept at all

_ANEW = (None, 1.0)  # momentum with which the last statistics don't depend on those before

_Before = dict[str, tuple[_BatchNorm, float, torch.Tensor, torch.Tensor]]


@dataclass(eq=False)
class _Candidate:
    """A forward pass that may turn out to be a stray one.

    Attributes:
        step: how many had been made before it.
        before: running statistics, until its part is over.
        moves: of its parts that are over.
    """

    constant: bool
    has_gradients: bool
    step: int
    before: _Before = field(default_factory=dict)
    moves: Moves = field(default_factory=dict)


class StrayFinder:
    """Tells stray forward passes from those that train.

    Args:
        norms: the network's batch norms by path.
    """

    def __init__(self, norms: dict[str, _BatchNorm]) -> None:
        self._momenta = {path: norm.momentum for path, norm in norms.items()}
        self._candidates: dict[int, _Candidate] = {}
        self._blocks: dict[int, Strays] = {}
        self._early, self._timeline = Strays(), Timeline()
        self._unreachable: int | None = None  # the last pass, if gradients were off
        self._refills = False

    def begins(self, run: ForwardPass, norms: dict[str, _BatchNorm], step: int) -> None:
        """Take down running statistics before a forward pass, or a part of one, that may be a stray one.

        Of passes with gradients, once training has begun, only those that follow one to which no gradient has
        come yet: a usual loop costs nothing. Of very many that wait for a backward pass, the first ones.
        """
        if run.recomputed or self._is_refilling(run, norms, step):
            return
        if self._unreachable not in (None, run.number):
            self._settle_unreachable()
        moving = self._moving(run, norms)
        if not moving:
            return
        known = self._candidates.get(run.number)
        if known is None:
            known = self._candidates[run.number] = _Candidate(
                constant=not step and _is_constant(run), has_gradients=run.trains, step=step
            )
        follows = any(
            each.has_gradients and each.step == step
            for number, each in self._candidates.items()
            if number != run.number
        )
        if (not step or not run.trains or follows) and len(self._candidates) <= _MANY:
            known.before = {
                path: (norm, version(norm), *copies)
                for path, norm in moving
                if (copies := copied_statistics(norm)) is not None
            }

    def ends(self, run: ForwardPass) -> None:
        """See what a forward pass, or a part of one, has moved."""
        candidate = self._candidates.get(run.number)
        if candidate is None:
            return
        watched, moves = bool(candidate.before), _moves(candidate.before)
        candidate.before = {}
        candidate.moves.update(moves)
        moves_nothing = watched and not candidate.moves
        if moves_nothing or (run.has_gradients and not run.can_be_reached):
            del self._candidates[run.number]  # or we can't know whether it trains
        elif not run.trains:
            self._unreachable = run.number
        elif len(self._candidates) > _MOST:
            self._settle(next(iter(self._candidates)))

    def reached(self, run: ForwardPass) -> None:
        """A backward pass has come: the forward pass trains."""
        self._candidates.pop(run.number, None)

    def step_ends(self, steps: int) -> None:
        """Close the account of the step before the last one; ``steps`` have been made now."""
        self._settle_unreachable()
        for number, candidate in tuple(self._candidates.items()):
            if candidate.step < steps - 1:
                self._settle(number)
        for step in tuple(self._blocks):
            if step < steps - 1:
                self._timeline.add(self._blocks.pop(step), step)

    def finish(self, steps: int) -> tuple[StrayCalls, StrayCalls, StrayCalls]:
        """Return evaluations, passes that belong to the training, and dummies.

        Args:
            steps: how many have been made. With none, passes without gradients are evaluations.
        """
        timeline, early = self._timeline.copy(), Strays()
        early.join(self._early)
        blocks = {step: _copy(block) for step, block in self._blocks.items()}
        for candidate in self._candidates.values():
            if candidate.step < steps or not candidate.has_gradients:
                block = early if not candidate.step else blocks.setdefault(candidate.step, Strays())
                block.add(candidate.moves, candidate.constant, candidate.has_gradients)
        for step, block in sorted(blocks.items()):
            timeline.add(block, step)
        evaluations, own, dummies = timeline.told_apart(early)
        if not steps:
            evaluations.join(dummies)
            dummies = Strays()
        return evaluations.found(), own.found(), dummies.found()

    def _is_refilling(self, run: ForwardPass, norms: dict[str, _BatchNorm], step: int) -> bool:
        """Whether running statistics have been reset after some training, and are estimated anew since."""
        if run.trains or not step:
            self._refills = False
        elif not self._refills:
            counters = (norm.num_batches_tracked for _, norm in self._moving(run, norms))
            self._refills = any(counter is not None and not int(counter) for counter in counters)
        return self._refills

    def _settle_unreachable(self) -> None:
        """Close the account of the last pass that no gradient could come to: no part goes on with it."""
        number, self._unreachable = self._unreachable, None
        if number is not None and number in self._candidates:
            self._settle(number)

    def _settle(self, number: int) -> None:
        candidate = self._candidates.pop(number)
        step = candidate.step
        block = self._blocks.setdefault(step, Strays()) if step else self._early
        block.add(candidate.moves, candidate.constant, candidate.has_gradients)

    def _moving(self, run: ForwardPass, norms: dict[str, _BatchNorm]) -> list[tuple[str, _BatchNorm]]:
        """The batch norms in a forward pass that move; not those whose statistics are estimated anew.

        For that ``torch.optim.swa_utils.update_bn`` sets momentum to None, and fvcore's precise BN to 1.
        """
        return [
            (path, norm)
            for path, norm in norms.items()
            if run.path in (ROOT, path) or path.startswith(f"{run.path}.")
            if isinstance(norm, _BatchNorm) and is_moving(norm)  # its class may have been changed
            if norm.momentum not in _ANEW or self._momenta.setdefault(path, norm.momentum) in _ANEW
        ]


def _copy(strays: Strays) -> Strays:
    copied = Strays()
    copied.join(strays)
    return copied


@torch.no_grad()
def _moves(before: _Before) -> Moves:
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

"""Forward passes in training mode that train nothing, and still move running statistics.

Before the first optimizer step those are dummy passes, such as of a summary or a profiler; afterwards they
are evaluations in training mode, or a part of the training (:mod:`~convscope.checkup.watching.stray_sums`).
A pass with gradients is known to be a stray one when two steps have been made without a backward pass having
come to it.
"""

from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.observed.run import StrayCalls
from convscope.checkup.watching.layers import copied_statistics, is_moving, version
from convscope.checkup.watching.stray_sums import Moves, Strays, Timeline
from convscope.core.address import ROOT
from convscope.probe.passes import ForwardPass
from convscope.probe.surroundings import tensors_in

_MANY = 64

_Before = dict[str, tuple[_BatchNorm, float, torch.Tensor, torch.Tensor]]


@dataclass(eq=False)
class _Candidate:
    """A forward pass that may turn out to be a stray one; ``step`` is how many had been made before it."""

    before: _Before
    constant: bool
    has_gradients: bool
    step: int
    moves: Moves | None = None


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

    def begins(self, run: ForwardPass, norms: dict[str, _BatchNorm], step: int) -> None:
        """Take down running statistics before a forward pass that may be a stray one.

        Of passes with gradients, once training has begun, only those that follow one to which no gradient has
        come yet: a usual loop costs nothing.
        """
        if run.recomputed or run.will_be_recomputed:
            return
        follows = any(each.has_gradients and each.step == step for each in self._candidates.values())
        before = {}
        if not step or not run.has_gradients or follows:
            before = {
                path: (norm, version(norm), *copies)
                for path, norm in self._moving(run, norms)
                if (copies := copied_statistics(norm)) is not None
            }
        if before or (step and run.has_gradients and any(True for _ in self._moving(run, norms))):
            constant = not step and _is_constant(run)
            self._candidates[run.number] = _Candidate(before, constant, run.has_gradients, step)

    def ends(self, run: ForwardPass) -> None:
        """See what a forward pass has moved."""
        candidate = self._candidates.get(run.number)
        if candidate is None or candidate.moves is not None:
            return
        watched, candidate.moves = bool(candidate.before), _moves(candidate.before)
        candidate.before = {}
        if (watched and not candidate.moves) or (run.has_gradients and not run.can_be_reached):
            del self._candidates[run.number]  # it moves nothing, or we can't know whether it trains
        elif not run.has_gradients:
            self._settle(run.number)
        if len(self._candidates) > _MANY:
            self._settle(next(iter(self._candidates)))

    def reached(self, run: ForwardPass) -> None:
        """A backward pass has come: the forward pass trains."""
        self._candidates.pop(run.number, None)

    def step_ends(self, steps: int) -> None:
        """Close the account of the step before the last one; ``steps`` have been made now."""
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
            if candidate.step < steps and candidate.moves is not None:
                block = early if not candidate.step else blocks.setdefault(candidate.step, Strays())
                block.add(candidate.moves, candidate.constant, candidate.has_gradients)
        for step, block in sorted(blocks.items()):
            timeline.add(block, step)
        evaluations, own, dummies = timeline.told_apart(early)
        if not steps:
            evaluations.join(dummies)
            dummies = Strays()
        return evaluations.found(), own.found(), dummies.found()

    def _settle(self, number: int) -> None:
        candidate = self._candidates.pop(number)
        step = candidate.step
        block = self._blocks.setdefault(step, Strays()) if step else self._early
        block.add(candidate.moves or {}, candidate.constant, candidate.has_gradients)

    def _moving(self, run: ForwardPass, norms: dict[str, _BatchNorm]) -> list[tuple[str, _BatchNorm]]:
        """The batch norms in a forward pass that move; not those whose statistics are estimated anew.

        For that ``torch.optim.swa_utils.update_bn`` sets momentum to None.
        """
        return [
            (path, norm)
            for path, norm in norms.items()
            if run.path in (ROOT, path) or path.startswith(f"{run.path}.")
            if isinstance(norm, _BatchNorm) and is_moving(norm)  # its class may have been changed
            if norm.momentum is not None or self._momenta.setdefault(path, None) is None
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

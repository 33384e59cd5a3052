"""A plan whose proof passes; what fails is taken back, with the reason."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.fold.planning.plan import Place, Plan
from convscope.fold.proof.blame import Blame
from convscope.fold.proof.comparison import Comparison, Wrong
from convscope.fold.proof.proof import THRESHOLDS, NotComparable, Witness
from convscope.fold.proof.trials import in_dtype
from convscope.tape import device_of, record

Planner = Callable[[Mapping[str, str]], Plan]
"""Makes a plan in which some batch norms are kept: their addresses, and why."""

_MOST_PASSES = 12
_WIDEST = max(THRESHOLDS.values())


@dataclass(frozen=True)
class Settled:
    """A plan and its proof.

    Attributes:
        plan: proved.
        comparison: the proof, or None if nothing folds.
        dtype: in which it was computed.
        threshold: that it passed.
    """

    plan: Plan
    comparison: Comparison | None = None
    dtype: torch.dtype = torch.float64
    threshold: float = THRESHOLDS[torch.float64]


def settle(model: nn.Module, planner: Planner, inputs: Any) -> Settled:
    """Prove a plan on copies of a network, without the folds that fail.

    In float64; in float32 if the network doesn't run in float64. Where the proof fails,
    :class:`convscope.fold.proof.blame.Blame` says what is taken back, and the rest is proved anew; once there
    are too few passes left for another attempt, all is taken back. At most twelve passes: four before, and
    up to four after each attempt, which ends where it first fails.

    Args:
        model: the network; it stays as it is.
        planner: makes the plans.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
    """
    plan = planner({})
    if not plan.changes:
        return Settled(plan)
    failure = ""
    for dtype, threshold in THRESHOLDS.items():
        try:
            witness = Witness(copied(model).to(dtype), inputs, _addresses(plan), dtype)
        except NotComparable as error:
            failure = failure or str(error)
            continue
        return _settled(model, planner, witness, Settled(plan, None, dtype, threshold), inputs)
    reason = f"the fold can't be proved: the network gives nothing to compare on the inputs tried ({failure})"
    kept = dict[str, str]()
    while plan.changes:
        kept.update({decision.address: reason for decision in plan.changes})
        plan = planner(kept)
    return Settled(plan)


@dataclass(frozen=True)
class _Attempt:
    """A plan, a copy of the network on which it was carried out, and what that has shown."""

    plan: Plan
    twin: nn.Module
    comparison: Comparison


def _settled(model: nn.Module, planner: Planner, witness: Witness, first: Settled, inputs: Any) -> Settled:
    plan, threshold, blame = first.plan, first.threshold, Blame(model, inputs)
    while True:
        twin = copied(model).to(first.dtype)
        plan.carry_out(twin)
        comparison = witness.compare(twin, _places(plan), threshold)
        if comparison.within(threshold):
            return Settled(plan, comparison, first.dtype, threshold)
        left = _MOST_PASSES - witness.passes
        if left < witness.num_trials:
            break
        if threshold < _WIDEST and not blame.held and _loses_digits(model, inputs, first.dtype):
            threshold = _WIDEST
            if comparison.within(threshold):
                continue
        wrong = _wrong(witness, blame, _Attempt(plan, twin, comparison), threshold)
        spare = _MOST_PASSES - witness.passes > witness.num_trials
        blame.hold(plan, comparison, wrong, spare=spare)
        plan = planner(blame.held)
        if not plan.changes:
            return Settled(plan)
    while plan.changes:  # what is kept may let others fold, which nobody has tried
        blame.hold_whole(plan.changes, comparison)
        plan = planner(blame.held)
    return Settled(plan)


def _wrong(witness: Witness, blame: Blame, attempt: _Attempt, threshold: float) -> Wrong:
    """What is wrong where all before it is right, if there are passes left to find out; else all of it."""
    wrong = attempt.comparison.wrong(threshold)
    if not wrong.places:
        return wrong
    wrong = replace(wrong, outputs=False)  # they may be so because of the places
    if _MOST_PASSES - witness.passes <= witness.num_trials:
        return wrong
    if attempt.comparison.failed_on != witness.whole_trial.kind:
        return blame.firsts(attempt.plan, wrong)
    forced = witness.forced(attempt.twin, _places(attempt.plan), threshold)
    return forced if forced is not None and (forced.places or forced.outputs) else wrong


def _addresses(plan: Plan) -> list[str]:
    """Where to look: at what folds, and at what may fold once something else is taken back."""
    norms = (decision.address for decision in plan.decisions if ":" not in decision.address)
    return list(dict.fromkeys([*(place.address for place in _places(plan)), *(n for n in norms if "#" in n)]))


def _places(plan: Plan) -> tuple[Place, ...]:
    return tuple(decision.place for decision in plan.changes if decision.place is not None)


def _loses_digits(model: nn.Module, inputs: Any, dtype: torch.dtype) -> bool:
    """Whether the network's own code goes through a narrower dtype, whatever its weights have."""
    try:
        twin = copied(model).to(dtype)
        tape = record(twin, in_dtype(inputs, dtype), device=device_of(twin))
    except ConvscopeError:
        return False
    made = (tape.values[v].dtype for call in tape.calls for v in call.outputs if v is not None)
    return any(each.is_floating_point and each.itemsize < dtype.itemsize for each in made)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network.

    Raises:
        ConvscopeError: it can't be copied.
    """
    held = (item for module in model.modules() for item in vars(module).values())
    made = (item for item in held if isinstance(item, Tensor) and not item.is_leaf)  # by hooks, for each run
    try:
        return copy.deepcopy(model, {id(item): item.detach().clone() for item in made})
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConvscopeError(
            f"a {type(model).__name__} that can't be copied ({reason})",
            "a model that copy.deepcopy takes",
            "take out tensors that are neither parameters nor buffers, or load the model anew",
        ) from error

"""A plan whose proof passes; what fails is taken back, with the reason."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.fold.planning.plan import Place, Plan
from convscope.fold.proof.proof import THRESHOLDS, Comparison, NotComparable, Witness
from convscope.fold.proof.trials import in_dtype
from convscope.tape import device_of, record

Planner = Callable[[Mapping[str, str]], Plan]
"""Makes a plan in which some batch norms are kept: their addresses, and why."""


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

    In float64; in float32 if the network doesn't run in float64. Where the proof fails, the batch norms at
    whose places values differ are kept and the rest is proved anew; if that fails too, or if no place shows
    what is wrong, all of them are kept. At most twelve passes: four before, and four after each attempt.

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


def _settled(model: nn.Module, planner: Planner, witness: Witness, first: Settled, inputs: Any) -> Settled:
    plan, threshold, kept = first.plan, first.threshold, dict[str, str]()
    for attempt in range(2):
        twin = copied(model).to(first.dtype)
        plan.carry_out(twin)
        comparison = witness.compare(twin, _places(plan))
        if not comparison.within(threshold) and attempt == 0 and _loses_digits(model, inputs, first.dtype):
            threshold = max(THRESHOLDS.values())
        if comparison.within(threshold):
            return Settled(plan, comparison, first.dtype, threshold)
        beyond = comparison.beyond(threshold)
        wrong = [d for d in plan.changes if d.place is not None and d.place.address in beyond]
        if attempt == 1 or not wrong:
            wrong = list(plan.changes)
        kept.update({decision.address: _undone(comparison) for decision in wrong})
        plan = planner(kept)
        if not plan.changes:
            return Settled(plan)
    while plan.changes:  # what is kept may let others fold, which nobody has tried
        kept.update({decision.address: _undone(comparison) for decision in plan.changes})
        plan = planner(kept)
    return Settled(plan)


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


def _undone(comparison: Comparison) -> str:
    if comparison.failure:
        return f"taken back: with it the network fails ({comparison.failure})"
    worst = max((comparison.max_error, *comparison.at.values()))
    return f"taken back: with it values differ by {worst:.1e} of their size"

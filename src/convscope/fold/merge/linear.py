"""Which operators are linear, per channel, in what they read: a table of rules.

A rule says of one operator call that its result is Σ gain · operand + shift, where gains and shifts are
numbers, or numbers per channel, that the network holds. What has no rule isn't linear.

Not covered: transposed convolution, linear layers, sums of stacked values, changes of dtype.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.fold.merge.constants import Run, batch_norm_constants, is_per_channel
from convscope.tape import OperatorCall, Ref

Vector = Callable[[], Tensor]
"""Returns numbers per channel in float64; called only for what is merged."""


@dataclass(frozen=True)
class Gain:
    """What a sum multiplies an operand by.

    Attributes:
        number: the same for all channels.
        vector: one more factor per channel, or None.
    """

    number: float = 1.0
    vector: Vector | None = None


@dataclass(frozen=True)
class Step:
    """One operator call that is linear in what it reads.

    Attributes:
        operands: the values that it reads, constants left out, each with its gain.
        shift: what it adds, or None.
    """

    operands: tuple[tuple[int, Gain], ...]
    shift: Vector | None = None


Rule = Callable[[Run, OperatorCall], Step | None]
"""Returns what a call computes, or None if it isn't linear in this way."""

STEPS: dict[str, Rule] = {}
"""By the operator's name on the tape."""


def steps(*ops: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of some operators."""

    def register(rule: Rule) -> Rule:
        STEPS.update(dict.fromkeys(ops, rule))
        return rule

    return register


def step_of(run: Run, call: OperatorCall) -> Step | None:
    """Return what a call computes if it is linear and keeps the shape and dtype of what it reads."""
    rule = STEPS.get(call.op)
    if rule is None or not call.outputs or call.outputs[0] is None:
        return None
    made = run.tape.values[call.output]
    step = rule(run, call) if len(made.shape) > 2 else None
    if step is None or not step.operands:
        return None
    read = [run.tape.values[value] for value, _ in step.operands]
    same = all((value.shape, value.dtype) == (made.shape, made.dtype) for value in read)
    return step if same else None


@steps("add", "add_", "sub", "sub_")
def sum_of_two(run: Run, call: OperatorCall) -> Step | None:
    """``self ± alpha · other``, where one of the two may be a constant."""
    sign = -1.0 if call.op.startswith("sub") else 1.0
    terms = (("self", 1.0), ("other", sign * float(call.arguments.get("alpha", 1))))
    return _weighted(run, call, terms)


@steps("rsub")
def sum_reversed(run: Run, call: OperatorCall) -> Step | None:
    """``other − alpha · self``."""
    return _weighted(run, call, (("self", -float(call.arguments.get("alpha", 1))), ("other", 1.0)))


@steps("neg", "neg_", "clone")
def same_or_negative(run: Run, call: OperatorCall) -> Step | None:
    """``self`` or ``−self``."""
    return _weighted(run, call, (("self", 1.0 if call.op == "clone" else -1.0),))


@steps("mul", "mul_", "div", "div_")
def scaled(run: Run, call: OperatorCall) -> Step | None:
    """``self · other`` or ``self / other``, where one of the two is a constant per channel (layer scale)."""
    divides = call.op.startswith("div")
    if call.arguments.get("rounding_mode") is not None:
        return None
    operands: list[object] = [call.arguments["self"], call.arguments["other"]]
    if not divides and (not isinstance(operands[0], Ref) or run.is_constant(operands[0].value)):
        operands.reverse()
    value, factor = operands
    if not isinstance(value, Ref) or run.is_constant(value.value):
        return None
    if isinstance(factor, int | float):
        number = float(factor)
        if not math.isfinite(number) or (divides and number == 0):
            return None
        return Step(((value.value, Gain(1 / number if divides else number)),))
    if not isinstance(factor, Ref) or not _combines(run, factor.value, call.output):
        return None
    vector = _vector(run, factor.value, call.output, divides=divides)
    return Step(((value.value, Gain(1.0, vector)),))


@steps("batch_norm")
def normalised(run: Run, call: OperatorCall) -> Step | None:
    """``s · input + t`` with the running statistics."""
    constants = batch_norm_constants(run, call)
    operand = call.tensor("input")
    if constants is None or operand is None:
        return None
    scale, shift = constants
    return Step(((operand, Gain(1.0, lambda: scale)),), lambda: shift)


def _weighted(run: Run, call: OperatorCall, terms: tuple[tuple[str, float], ...]) -> Step | None:
    """The step of a sum with numbers before its terms, which may be constants themselves."""
    operands: list[tuple[int, Gain]] = []
    shifts: list[Vector] = []
    channels = run.tape.values[call.output].shape[1]
    for name, number in terms:
        argument = call.arguments[name]
        if isinstance(argument, int | float):
            if argument:
                shifts.append(_number(float(argument) * number, channels))
        elif not isinstance(argument, Ref):
            return None
        elif not run.is_constant(argument.value):
            operands.append((argument.value, Gain(number)))
        elif _combines(run, argument.value, call.output):
            shifts.append(_times(_vector(run, argument.value, call.output), number))
        else:
            return None
    return Step(tuple(operands), _total(shifts))


def _total(shifts: list[Vector]) -> Vector | None:
    return (lambda: torch.stack([shift() for shift in shifts]).sum(0)) if shifts else None


def _number(number: float, channels: int) -> Vector:
    return lambda: torch.full((channels,), number, dtype=torch.float64)


def _times(vector: Vector, number: float) -> Vector:
    return lambda: vector() * number


def _combines(run: Run, value: int, like: int) -> bool:
    return run.is_constant(value) and is_per_channel(run, value, like)


def _vector(run: Run, value: int, like: int, *, divides: bool = False) -> Vector:
    channels = run.tape.values[like].shape[1]

    def vector() -> Tensor:
        held = run.constant(value).reshape(-1).expand(channels)
        return 1 / held if divides else held

    return vector

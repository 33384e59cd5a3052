"""Where values of a recorded run come from: which depend on the image, and what others are made of.

Projections look through operators that keep a value's content: views, copies, scales by constants.
"""

from dataclasses import dataclass
from functools import cached_property

from convscope.tape import OperatorCall, Tape

# Their result has the shape of a tensor, but not its content.
SHAPE_ONLY = {
    "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty",
    "rand_like", "randn_like",
}  # fmt: skip
VIEWS = {
    "view", "_unsafe_view", "_reshape_alias", "reshape", "permute", "transpose", "t", "expand", "squeeze",
    "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "unbind", "unfold", "as_strided",
    "movedim", "unflatten", "diagonal", "view_as_complex", "view_as_real", "repeat", "clone", "_to_copy",
    "contiguous", "roll", "flip",
}  # fmt: skip
_SCALES = {"mul", "mul_", "div", "div_"}
_COPIES = {"clone", "_to_copy", "contiguous"}
_MULTIPLES = _SCALES | _COPIES | {"neg", "neg_"}
SHIFTS = {"add", "add_", "sub", "sub_", "rsub"}
_ELEMENTWISE = _SCALES | SHIFTS | {
    "sigmoid", "hardsigmoid", "tanh", "softplus", "exp", "log", "log1p", "erf", "neg", "pow", "square",
    "sqrt", "rsqrt", "reciprocal", "abs", "relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max",
    "gt", "ge", "lt", "le", "_to_copy", "clone", "threshold", "leaky_relu",
}  # fmt: skip


@dataclass(frozen=True)
class Origins:
    """What the values of a recorded run are made of.

    Args:
        tape: of one run in evaluation mode.
    """

    tape: Tape

    def depends(self, value: int) -> bool:
        """Whether the image's content reaches a value, differentiably or not."""
        return value in self.dependent

    @cached_property
    def dependent(self) -> frozenset[int]:
        """All values that depend on the image."""
        # A write into a view changes the whole tensor: a value that isn't among the call's results.
        written: dict[int, list[int]] = {}
        for value in self.tape.values:
            if value.producer is not None:
                written.setdefault(value.producer, []).append(value.index)
        reached = set(self.tape.inputs)
        for call in self.tape.calls:
            if call.op not in SHAPE_ONLY and not reached.isdisjoint(call.inputs):
                reached.update(output for output in call.outputs if output is not None)
                reached.update(written.get(call.index, ()))
        return frozenset(reached)

    def places(self, call: OperatorCall) -> tuple[int, ...]:
        """Return which of a call's inputs depend on the image."""
        return tuple(place for place, value in enumerate(call.inputs) if value in self.dependent)

    def within(self, value: int, *, shifts: bool = False) -> int:
        """Return the value that this one is but for views, copies and constant scales (and ``shifts``)."""
        through = VIEWS | _SCALES | SHIFTS if shifts else VIEWS | _SCALES
        while (before := self._one_before(value, through)) is not None:
            value = before
        return value

    def multiples(self, value: int) -> list[int]:
        """Return the values that this one is a constant multiple of, element by element; itself first."""
        found = [value]
        while (before := self._one_before(found[-1], _MULTIPLES)) is not None:
            found.append(before)
        return found

    def unviewed(self, value: int) -> int:
        """Return the value that this one is a view or a repetition of."""
        while (before := self._one_before(value, VIEWS - _COPIES)) is not None:
            value = before
        return value

    def is_elementwise(self, value: int, root: int) -> bool:
        """Whether every element is computed from constants and from ``root`` alone, at its own position."""
        pending, seen, arrived = [value], {value}, False
        while pending:
            current = pending.pop()
            if current == root:
                arrived = True
                continue
            call = self.tape.producer(current)
            if call is None or call.op.rstrip("_") not in {op.rstrip("_") for op in _ELEMENTWISE}:
                return False
            before = [v for v in call.inputs if v in self.dependent and v not in seen]
            seen.update(before)
            pending += before
        return arrived

    def comes_from(self, call: OperatorCall, value: int) -> bool:
        """Whether a call's result is computed from a value, along with whatever else."""
        pending, seen = list(call.inputs), set[int]()
        while pending:
            current = pending.pop()
            if current == value:
                return True
            producer = self.tape.producer(current)
            if producer is not None and producer.index not in seen:
                seen.add(producer.index)
                pending += [v for v in producer.inputs if v in self.dependent]
        return False

    def _one_before(self, value: int, through: set[str]) -> int | None:
        """The only image-dependent input of a value's producer, if that is one of some operators."""
        call = self.tape.producer(value)
        if call is None or call.op not in through or value not in call.outputs:
            return None
        dependent = [call.inputs[place] for place in self.places(call)]
        if len(dependent) != 1 or dependent[0] == value:
            return None
        # A quotient by what depends on the image isn't a scale of it.
        return None if call.op in ("div", "div_") and call.inputs[0] != dependent[0] else dependent[0]

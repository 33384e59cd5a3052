"""Which recorded operators are ReLUs, however they are written, and which have a gate of their own."""

from collections.abc import Mapping
from math import inf
from typing import Any

from convscope.sight.projecting.origins import Origins
from convscope.sight.projecting.registering import GATES
from convscope.tape import OperatorCall

CLAMPS = {"clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_"}
EXTREMES = {"maximum", "minimum"}
_ZEROS = {"zeros", "zeros_like", "new_zeros", "scalar_tensor", "full", "full_like", "zero_"}
# φ(x) = x · gate(x) whatever their settings.
_GATED = {
    "silu", "gelu", "hardswish", "mish", "leaky_relu", "_prelu_kernel", "rrelu_with_noise", "elu", "celu",
    "selu", "tanh", "softshrink", "hardshrink",
}  # fmt: skip


def is_relu(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator is max(x, 0)."""
    given = call.arguments
    if call.op in ("relu", "relu_"):
        return True
    if call.op in ("threshold", "threshold_"):
        return bool(given["threshold"] == 0 and given["value"] == 0)
    if call.op in CLAMPS:
        return bounds(call.op, given) == (0, inf)
    if call.op == "maximum":
        return zeros_beside(origins, call) is not None
    return call.op == "where" and _selects_positives(origins, call)


def has_gate(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator is an activation φ(x) = x · gate(x), other than ReLU."""
    if call.op.rstrip("_") in _GATED or has_own_gate(origins, call):
        return True
    given = call.arguments
    if is_square(origins, call):
        return True
    if call.op in ("threshold", "threshold_"):
        return bool(given["value"] == 0)
    if call.op in ("hardtanh", "hardtanh_", *CLAMPS):
        limits = bounds(call.op, given)
        return limits is not None and limits[0] <= 0 <= limits[1]
    return False


def has_own_gate(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator is an activation of another library's whose gate was registered."""
    return call.op in GATES and len(origins.places(call)) == 1


def is_square(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator squares what a ReLU made: r · r, with the gate r."""
    if call.op != "pow" or call.arguments.get("exponent") != 2 or not call.inputs:
        return False
    rectifier = origins.tape.producer(call.inputs[0])
    return rectifier is not None and is_relu(origins, rectifier)


def bounds(op: str, given: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lower and upper bound of a clamp or hardtanh; None if they are tensors."""
    names = ("min_val", "max_val") if op.startswith("hardtanh") else ("min", "max")
    limits = [given.get(name) for name in names]
    if any(limit is not None and not isinstance(limit, int | float) for limit in limits):
        return None
    low, high = limits
    return -inf if low is None else float(low), inf if high is None else float(high)


def zeros_beside(origins: Origins, call: OperatorCall) -> int | None:
    """Return which input of a maximum is the data, if the other one is made of zeros."""
    places = origins.places(call)
    if len(call.inputs) != 2 or len(places) != 1:
        return None
    return places[0] if _is_zeros(origins, call.inputs[1 - places[0]]) else None


def _selects_positives(origins: Origins, call: OperatorCall) -> bool:
    """Whether a ``where`` keeps what is positive and puts zeros elsewhere."""
    condition, kept, other = (call.tensor(name) for name in ("condition", "self", "other"))
    if condition is None or kept is None or other is None:
        return False
    test = origins.tape.producer(condition)
    is_test = test is not None and test.op in ("gt", "ge") and test.inputs[0] == kept
    return (
        is_test and _is_zeros(origins, other) and test is not None and bool(test.arguments.get("other") == 0)
    )


def _is_zeros(origins: Origins, value: int) -> bool:
    """Whether a value is a new tensor of zeros, perhaps spread to another shape."""
    if origins.depends(value):
        return False
    call = origins.tape.producer(value)
    while call is not None and call.op in ("expand", "view", "unsqueeze", "_to_copy"):
        value = call.inputs[0]
        call = origins.tape.producer(value)
    return call is not None and call.op in _ZEROS and not any(_fills(call))


def _fills(call: OperatorCall) -> list[object]:
    """The numbers other than zero that a new tensor is filled with."""
    return [call.arguments[name] for name in ("fill_value", "s") if call.arguments.get(name)]

"""Operators that only compare: a positive scale passes them, and a shift passes a maximum."""

from convscope.fold.gauge.labels import Labels
from convscope.fold.gauge.reading import Reading, passes
from convscope.fold.gauge.rules.averages import changes_in_windows
from convscope.tape import OperatorCall


@passes("relu", "leaky_relu", "threshold", "clamp_min", "clamp", "_prelu_kernel", "abs")
def rectify(reading: Reading, call: OperatorCall) -> None:
    """max(x, 0) and its like: f(a x) = a f(x) for a > 0."""
    value = call.inputs[0]
    if not _is_homogeneous(reading, call):
        return reading.opaque(call)
    labels = reading.of(value)
    reading.system.demand("positive", labels, f"{call.address} passes a positive scale only")
    reading.system.demand("no shift", labels, f"{call.address} passes no shift")
    return reading.set(call.output, labels)


def _is_homogeneous(reading: Reading, call: OperatorCall) -> bool:
    name = call.op.rstrip("_")
    if name == "threshold":
        return bool(call.arguments["threshold"] == 0 and call.arguments["value"] == 0)
    if name in ("clamp", "clamp_min"):
        return bool(call.arguments.get("min") == 0) and call.arguments.get("max") is None
    return all(reading.constants.holds(value) for value in call.inputs[1:])


@passes("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d",
)  # fmt: skip
def max_pool(reading: Reading, call: OperatorCall) -> None:
    """The largest of a window, whose padding is −∞."""
    labels = reading.of(call.inputs[0])
    if changes_in_windows(labels.shape, call):
        return reading.opaque(call)
    _compare(reading, call, labels)
    return reading.set(call.output, labels)


@passes("amax", "max")
def largest(reading: Reading, call: OperatorCall) -> None:
    """The largest along axes on which labels don't change."""
    value, labels = call.inputs[0], reading.of(call.inputs[0])
    if len(call.inputs) > 1 or "dim" not in call.arguments:
        return reading.opaque(call)
    given = call.arguments["dim"]
    axes = {axis % labels.ndim for axis in ([given] if isinstance(given, int) else given)} or {
        *range(labels.ndim)
    }
    if any(labels.shape[axis] > 1 for axis in axes):
        return reading.opaque(call)
    _compare(reading, call, labels)
    keeps = len(reading.shape(call.output)) == len(reading.shape(value))
    return reading.set(call.output, labels if keeps else labels.squeeze(tuple(axes)))


def _compare(reading: Reading, call: OperatorCall, labels: Labels) -> None:
    reading.system.demand("positive", labels, f"{call.address} passes a positive scale only")
    reading.system.demand("constant", labels, f"{call.address} may tell where the largest element was")

"""Weighted means of elements: gauges pass where the weights sum to 1 everywhere."""

import numpy as np

from convscope.fold.gauge.reading import Reading, passes
from convscope.tape import OperatorCall


@passes("mean", "sum")
def mean(reading: Reading, call: OperatorCall) -> None:
    """Over axes on which labels don't change; a sum of n elements has n times the shift."""
    value = call.inputs[0]
    labels, shape = reading.of(value), reading.shape(value)
    given = call.arguments.get("dim")
    axes = tuple(sorted({axis % labels.ndim for axis in (given or range(labels.ndim))}))
    if any(labels.shape[axis] > 1 for axis in axes):
        return reading.opaque(call)
    if not call.arguments.get("keepdim", False):
        labels = labels.squeeze(axes)
    if call.op == "sum":
        count = 1
        for axis in axes:
            count *= shape[axis]
        labels = reading.system.combined([(labels, float(count))], 0.0, str(call.address))
    return reading.set(call.output, labels)


@passes("avg_pool2d", "avg_pool3d")
def average_pool(reading: Reading, call: OperatorCall) -> None:
    """Zeros in the padding, where they're counted, let only a scale pass."""
    labels = reading.of(call.inputs[0])
    if changes_in_windows(labels.shape, call):
        return reading.opaque(call)
    divisor, is_padded = call.arguments.get("divisor_override"), any(call.arguments["padding"])
    if is_padded and call.arguments["count_include_pad"]:
        reading.system.demand("no shift", labels, f"{call.address} averages over zeros in its padding too")
    elif divisor is not None and (is_padded or call.arguments["ceil_mode"]):
        reading.system.demand("no shift", labels, f"{call.address} divides windows of any size by {divisor}")
    elif divisor is not None:
        factor = float(np.prod(call.arguments["kernel_size"])) / divisor
        labels = reading.system.combined([(labels, factor)], 0.0, str(call.address))
    return reading.set(call.output, labels)


@passes(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
def resize(reading: Reading, call: OperatorCall) -> None:
    """Means over windows, and interpolation: weights that sum to 1."""
    labels = reading.of(call.inputs[0])
    if changes_in_windows(labels.shape, call):
        return reading.opaque(call)
    return reading.set(call.output, labels)


def changes_in_windows(lengths: tuple[int, ...], call: OperatorCall) -> bool:
    """Return whether labels change along one of the last axes, as many as the operator's name says."""
    num_axes = next(int(digit) for digit in call.op if digit.isdigit())
    return any(length > 1 for length in lengths[-num_axes:])

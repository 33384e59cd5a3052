"""Operators that move elements without computing: gauges move along with them, whatever they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from convscope.fold.gauge.labels import Labels, along, compact, joined, moved, on_axis, reshaped, written_out
from convscope.fold.gauge.reading import Reading, passes
from convscope.fold.layers.border import is_own_padding, zero_pad_of
from convscope.fold.recorded.constants import operator_of
from convscope.fold.recorded.flow import Stays
from convscope.tape import OperatorCall, Ref


def data(call: OperatorCall) -> int:
    """Return the value that a call moves: its first tensor."""
    return call.inputs[0]


@passes("view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze")
def reshape(reading: Reading, call: OperatorCall) -> None:
    """Axes are merged and split."""
    value = data(call)
    if call.overload.endswith(".dtype"):  # the same bits, read as other numbers
        return reading.opaque(call)
    if value in reading.stochastic and reading.shape(value)[-1:] == reading.shape(call.output)[-1:]:
        reading.stochastic.add(call.output)
    labels = reshaped(reading.of(value), reading.shape(value), reading.shape(call.output))
    return reading.set(call.output, labels)


@passes(
    "clone",
    "_to_copy",
)
def copy(reading: Reading, call: OperatorCall) -> None:
    """The same elements, in the same places; a cast to whole numbers rounds."""
    if not reading.flow.tape.values[call.output].dtype.is_floating_point:
        return reading.opaque(call)
    if data(call) in reading.stochastic:
        reading.stochastic.add(call.output)
    return reading.set(call.output, reading.of(data(call)))


@passes("expand")
def expand(reading: Reading, call: OperatorCall) -> None:
    """Elements are repeated along new axes and axes of length 1."""
    labels = reading.of(data(call))
    missing = len(reading.shape(call.output)) - labels.ndim
    reading.set(call.output, labels.reshape((1,) * missing + labels.shape))
    if data(call) in reading.stochastic and reading.shape(data(call))[-1] == reading.shape(call.output)[-1]:
        reading.stochastic.add(call.output)


@passes(
    "permute",
    "transpose",
    "t",
)
def permute(reading: Reading, call: OperatorCall) -> None:
    """Axes change places."""
    labels = reading.of(data(call))
    if call.op == "permute":
        order = [axis % labels.ndim for axis in call.arguments["dims"]]
    elif call.op == "transpose":
        order = list(range(labels.ndim))
        first, second = (call.arguments[name] % labels.ndim for name in ("dim0", "dim1"))
        order[first], order[second] = second, first
    else:
        order = list(range(labels.ndim))[::-1]
    reading.set(call.output, labels.transpose(order))


@passes(
    "slice",
    "select",
)
def cut(reading: Reading, call: OperatorCall) -> None:
    """A part along one axis."""
    value = data(call)
    labels, axis = reading.of(value), call.arguments["dim"] % len(reading.shape(value))
    if labels.shape[axis] > 1:
        labels = _run(call, labels, axis, reading.shape(value))[0]
    elif call.op == "select":
        labels = labels.squeeze(axis)
    reading.set(call.output, labels)


@passes(
    "split",
    "split_with_sizes",
    "unbind",
    "unsafe_split",
)
def split(reading: Reading, call: OperatorCall) -> None:
    """Parts along one axis."""
    value = data(call)
    labels, axis = reading.of(value), call.arguments.get("dim", 0) % len(reading.shape(value))
    if labels.shape[axis] > 1:
        parts = _run(call, labels, axis, reading.shape(value))
    else:
        parts = [labels.squeeze(axis) if call.op == "unbind" else labels] * len(call.outputs)
    for output, part in zip(call.outputs, parts, strict=True):
        reading.set(output, part)


def _run(call: OperatorCall, labels: Labels, axis: int, shape: tuple[int, ...]) -> list[Labels]:
    """The operator itself, on labels that are written out along one axis."""
    lengths = tuple(shape[i] if i == axis else length for i, length in enumerate(labels.shape))
    results = _operator(call)(written_out(labels, lengths))
    return [part.numpy() for part in ([results] if isinstance(results, Tensor) else results)]


@passes(
    "cat",
)
def concatenate(reading: Reading, call: OperatorCall) -> None:
    """Values one after the other along an axis."""
    values = [item.value for item in call.arguments["tensors"] if isinstance(item, Ref)]
    values = [value for value in values if reading.shape(value) != (0,)]
    axis = call.arguments.get("dim", 0) % len(reading.shape(call.output))
    sizes = [reading.shape(value)[axis] for value in values]
    reading.set(call.output, joined([reading.of(value) for value in values], sizes, axis))


@passes("stack")
def stack(reading: Reading, call: OperatorCall) -> None:
    """Values side by side along a new axis."""
    values = [item.value for item in call.arguments["tensors"] if isinstance(item, Ref)]
    axis = call.arguments.get("dim", 0) % len(reading.shape(call.output))
    parts = [np.expand_dims(reading.of(value), axis) for value in values]
    reading.set(call.output, joined(parts, [1] * len(parts), axis))


@passes(
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "flip", "roll", "repeat",
    "unfold", "index_select", "index", "tril", "diagonal", "rot90",
)  # fmt: skip
def shuffle(reading: Reading, call: OperatorCall) -> None:
    """Elements in other places: the operator is run on the labels. What it picks by must be constant."""
    others = call.inputs[1:]
    if call.op == "tril" or not all(reading.constants.holds(value) for value in others):
        return reading.opaque(call)
    value = data(call)
    numbers = {other: reading.constants.numbers(other) for other in others}
    function = _operator(call, numbers)
    if call.op not in _WITHIN_SAMPLES:
        labels, shape = reading.of(value), reading.shape(value)
        return reading.set(call.output, compact(function(written_out(labels, shape)).numpy()))
    return reading.set(call.output, moved(reading.of(value), reading.shape(value), function))


def _operator(call: OperatorCall, numbers: dict[int, Tensor] | None = None) -> Callable[[Tensor], Any]:
    """The ATen operator that ran, as a function of its first tensor; copies, since views are written to."""
    operator = operator_of(call)
    first = next(name for name, argument in call.arguments.items() if isinstance(argument, Ref))

    def known(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return (numbers or {})[argument.value]
        if isinstance(argument, list | tuple):
            return [known(item) for item in argument]
        return argument

    rest = {name: known(argument) for name, argument in call.arguments.items() if name != first}
    return lambda tensor: operator(**{first: tensor}, **rest)


_WITHIN_SAMPLES = {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"}


@passes("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
def filled(reading: Reading, call: OperatorCall) -> None:
    """Constants: only the shape of what they're like is read."""
    reading.set(call.output, np.zeros((1,) * len(reading.shape(call.output)), dtype=np.int64))


@passes("new_empty", "empty_like", "new_empty_strided", always=True)
def unwritten(reading: Reading, call: OperatorCall) -> None:
    """Memory, to be written to."""
    reading.set_unwritten(call.output)


@passes("copy")
def write(reading: Reading, call: OperatorCall) -> None:
    """``copy_``: what is written counts, not what it is written over."""
    source = call.tensor("src")
    if source is None or not reading.flow.tape.values[call.output].dtype.is_floating_point:
        return reading.opaque(call)
    labels, rank = reading.of(source), len(reading.shape(call.output))
    return reading.set(call.output, labels.reshape((1,) * (rank - labels.ndim) + labels.shape))


@passes("constant_pad_nd")
def pad(reading: Reading, call: OperatorCall) -> None:
    """A constant around the value: zeros stay zeros under a scale, not under a shift."""
    value = data(call)
    labels, shape = reading.of(value), reading.shape(value)
    pads = list(call.arguments["pad"])
    number = call.arguments.get("value", 0)
    widened = [len(shape) - 1 - i // 2 for i, size in enumerate(pads) if size > 0]
    if number != 0 and widened:
        return reading.opaque(call)
    if any(axis not in _labelled(labels) for axis in widened):
        _ask_for_zeros(reading, call, labels)
    if not {len(shape) - 1 - i // 2 for i, size in enumerate(pads) if size} & set(_labelled(labels)):
        return reading.set(call.output, labels)
    for i in range(0, len(pads), 2):
        axis = len(shape) - 1 - i // 2
        if labels.shape[axis] > 1:
            labels = _padded(labels, axis, pads[i], pads[i + 1])
    return reading.set(call.output, labels)


def _ask_for_zeros(reading: Reading, call: OperatorCall, labels: Labels) -> None:
    """Zeros take no shift, unless something else is to be put in their place."""
    if is_own_padding(reading.flow, call) and reading.options.border != "keep":
        return  # the convolution that goes on with it says what it needs
    channels = on_axis(labels, 1, reading.shape(data(call))[1]) if labels.ndim > 1 else None
    try:
        reading.pads.append(zero_pad_of(reading.flow, reading.options, call, channels))
    except Stays as reason:
        reading.system.demand("no shift", labels, reading.text(reason))
    else:
        for kind in ("rather no shift", "padded"):
            reading.system.demand(kind, labels, f"{call.address} pads with zeros")


def _labelled(labels: Labels) -> list[int]:
    return [axis for axis, length in enumerate(labels.shape) if length > 1]


def _padded(labels: Labels, axis: int, before: int, after: int) -> Labels:
    """Labels with ground on both sides along an axis, or with their ends cut off."""
    ends = [along(np.zeros(max(size, 0), dtype=np.int64), axis, labels.ndim) for size in (before, after)]
    kept = range(max(-before, 0), labels.shape[axis] - max(-after, 0))
    inner = labels.take(list(kept), axis)
    sizes = [max(before, 0), len(kept), max(after, 0)]
    parts = [part for part, size in zip((ends[0], inner, ends[1]), sizes, strict=True) if size]
    return joined(parts, [size for size in sizes if size], axis)


@passes("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
        "replication_pad3d")  # fmt: skip
def pad_by_itself(reading: Reading, call: OperatorCall) -> None:
    """The value's own elements around it, along the last axes."""
    value = data(call)
    pads = call.arguments["padding" if "padding" in call.arguments else "pad"]
    labels, num_axes = reading.of(value), len(pads) // 2
    if any(axis >= labels.ndim - num_axes for axis in _labelled(labels)):
        return reading.opaque(call)
    return reading.set(call.output, labels)

"""Which axis of a value holds the channels, as far as the recorded data flow tells.

Networks such as Swin and ConvNeXt move the channels to the end, normalise and multiply there, and hand such
maps on between modules. Read as (n, c, h, w), a row of the image would pass for a channel.

Limits: after views that fold axes the layout is unknown until a sum, a layer norm or a linear layer tells.
"""

from convscope.tape import OperatorCall, Tape

_PRODUCTS = {"mm", "addmm", "linear"}
_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


def channel_axes(tape: Tape) -> dict[int, int]:
    """Return the channels' axis of those values of which it is known, by value index.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> class ChannelsLast(nn.Conv2d):
        ...     def forward(self, x):
        ...         return super().forward(x).permute(0, 2, 3, 1)
        >>> tape = record(ChannelsLast(3, 4, 3), (1, 3, 8, 8))
        >>> channel_axes(tape)[tape.outputs[0]]
        3
    """
    axes = {value: 1 for value in tape.inputs if _rank(tape, value) == 4}
    for call in tape.in_phase("forward"):
        for output in call.outputs:
            if output is not None and output not in axes and _rank(tape, output) >= 2:
                axis = _axis(tape, call, output, axes)
                if axis is not None:
                    axes[output] = axis
    return axes


def _axis(tape: Tape, call: OperatorCall, output: int, axes: dict[int, int]) -> int | None:
    rank = _rank(tape, output)
    if call.op == "convolution":
        return 1
    if call.op in _PRODUCTS:
        return rank - 1
    if call.op in _VIEWS:
        return _viewed(tape, call, output, axes)
    same_rank = (value for value in call.inputs if _rank(tape, value) == rank)
    known = next((axis for value in same_rank if (axis := _of(tape, value, axes)) is not None), None)
    if known is None:
        is_last = call.op == "layer_norm" and len(call.arguments["normalized_shape"]) == 1
        return rank - 1 if is_last else None
    if call.op == "permute":
        return [dim % rank for dim in call.arguments["dims"]].index(known)
    if call.op == "transpose":
        moved = [call.arguments[name] % rank for name in ("dim0", "dim1")]
        return moved[1 - moved.index(known)] if known in moved else known
    return known


def _of(tape: Tape, value: int, axes: dict[int, int]) -> int | None:
    """A value's axis; one that is read after a write to a part of it has the axis of that part."""
    writer = tape.producer(value)
    if value in axes or writer is None or not writer.outputs:
        return axes.get(value)
    written = writer.outputs[0]
    is_part = written is not None and _rank(tape, written) == _rank(tape, value)
    return axes.get(written) if is_part and written is not None else None


def _viewed(tape: Tape, call: OperatorCall, output: int, axes: dict[int, int]) -> int | None:
    """The axis after a view: known if nothing changes, or if the channels were and stay the last axis."""
    before, after = (tape.values[value].shape for value in (call.inputs[0], output))
    known = _of(tape, call.inputs[0], axes)
    if before == after:
        return known
    stays_last = known == len(before) - 1 and before[-1] == after[-1]
    return len(after) - 1 if stays_last else None


def _rank(tape: Tape, value: int) -> int:
    return len(tape.values[value].shape)

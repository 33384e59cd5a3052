"""What CUDA's operators take and give back inside themselves, which a recording of calls doesn't show.

A table of rules per operator says which operands it copies, and where it runs a cuDNN kernel that may take
a workspace. PyTorch's sources, version 2.13:

- convolutions: ``aten/src/ATen/native/cudnn/ConvShared.cpp`` and ``convolution_backward`` in
  ``aten/src/ATen/native/Convolution.cpp``. Operands that aren't contiguous in the memory format of the
  operation are copied, and the copies live until its kernel has been launched. The format is channels-last if
  the input or the weight is, and contiguous for 64-bit numbers (``cudnn_conv_suggest_memory_format`` in
  ``ATen/native/ConvUtils.h``).
- depthwise convolutions in contiguous order run PyTorch's own kernel, without copies or workspace
  (``use_cudnn_depthwise`` in ``aten/src/ATen/native/Convolution.cpp``; in 16 bit cuDNN's may run instead).
- batch norm's backward: ``cudnn_batch_norm_backward`` in ``aten/src/ATen/native/cudnn/BatchNorm.cpp`` copies
  the gradient into the input's format.
- convscope's own norms compute in scratch space (``convscope.norm.engine``), on an accelerator all at once.

Limits: not modelled are the partial sums of reductions (``ATen/native/cuda/Reduce.cuh``) and of the backward
passes of layer and group norm, the sorting in the backward of embeddings and of indexing, the workspace of
cuDNN's batch norm in channels-last order, and of recurrent layers. They are small beside a convolution's
operands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch

from convscope.norm.engine.reductions import is_by_position
from convscope.norm.engine.statistics import accumulated_in
from convscope.tape import OperatorCall, Tape, Value

Kernel = Literal["forward", "input-gradient", "weight-gradient"]


@dataclass(frozen=True)
class Passing:
    """Memory that an operator takes once one of its results is there, and gives back before the next.

    Attributes:
        after: index of the result among the call's outputs.
        copies: bytes of each copy of an operand.
        kernel: the cuDNN convolution kernel that runs then, if one does; it may take a workspace.
    """

    after: int
    copies: tuple[int, ...]
    kernel: Kernel | None = None


def passings(tape: Tape, call: OperatorCall) -> tuple[Passing, ...]:
    """Return what a call takes inside itself on a CUDA device, in order."""
    rule = _RULES.get(call.op)
    return () if rule is None else rule(tape, call)


def operand(tape: Tape, call: OperatorCall, name: str) -> Value:
    """Return the value of a tensor argument that is there."""
    index = call.tensor(name)
    assert index is not None
    return tape.values[index]


def is_channels_last(value: Value) -> bool:
    """Return whether PyTorch takes a tensor's strides for channels-last.

    Source: ``is_channels_last_strides_2d_s4`` and ``_3d_s5`` in ``c10/core/MemoryFormat.h``.
    """
    sizes, strides = value.shape, value.stride
    if len(sizes) not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for axis in (1, *range(len(sizes) - 1, 1, -1), 0):
        ambiguous = axis == 0 and least == strides[1]
        if sizes[axis] == 0 or strides[axis] < least or ambiguous:
            return False
        least = strides[axis] * max(sizes[axis], 1)
    return True


def is_contiguous(value: Value, channels_last: bool) -> bool:
    """Return whether a tensor lies without gaps in the given order; axes of size 1 don't count."""
    axes = range(len(value.shape) - 1, -1, -1)
    expected = 1
    for axis in (1, *(a for a in axes if a > 1), 0) if channels_last else axes:
        if value.shape[axis] != 1:
            if value.stride[axis] != expected:
                return False
            expected *= value.shape[axis]
    return True


def is_own_depthwise_kernel(tape: Tape, call: OperatorCall) -> bool:
    """Return whether PyTorch's own depthwise kernel runs, and not cuDNN's."""
    x, weight = operand(tape, call, "input"), operand(tape, call, "weight")
    groups = call.arguments["groups"]
    depthwise = not call.arguments["transposed"] and groups > 1 and x.shape[1] == groups
    return depthwise and weight.shape[0] % groups == 0 and not _format(x, weight)


def _format(x: Value, other: Value) -> bool:
    """Whether a convolution works in channels-last order: its input or its weight lies so."""
    if torch.float64 in (x.dtype, other.dtype) or len(x.shape) not in (4, 5):
        return False
    return is_channels_last(x) or is_channels_last(other)


def _copies(channels_last: bool, *operands: Value) -> tuple[int, ...]:
    return tuple(value.nbytes for value in operands if not is_contiguous(value, channels_last))


def _convolution(tape: Tape, call: OperatorCall) -> tuple[Passing, ...]:
    if is_own_depthwise_kernel(tape, call):
        return ()
    x, weight = operand(tape, call, "input"), operand(tape, call, "weight")
    return (Passing(0, _copies(_format(x, weight), x, weight), "forward"),)


def _convolution_backward(tape: Tape, call: OperatorCall) -> tuple[Passing, ...]:
    if is_own_depthwise_kernel(tape, call):
        return ()
    x, weight, gradient = (operand(tape, call, name) for name in ("input", "weight", "grad_output"))
    channels_last = _format(x, weight)
    for_weight = call.outputs[1] is not None
    copied = _copies(channels_last, x) if for_weight else ()
    found = []
    if call.outputs[0] is not None:
        found.append(Passing(0, copied + _copies(channels_last, gradient, weight), "input-gradient"))
    if for_weight:
        found.append(Passing(1, copied + _copies(channels_last, gradient), "weight-gradient"))
    return tuple(found)


def _batch_norm_backward(tape: Tape, call: OperatorCall) -> tuple[Passing, ...]:
    x, gradient = operand(tape, call, "input"), operand(tape, call, "grad_out")
    copies = _copies(is_channels_last(x), gradient)
    return (Passing(len(call.outputs) - 1, copies),) if copies else ()


def _own_norm(call_with: Callable[[Tape, OperatorCall, bool], int]) -> Callable[..., tuple[Passing, ...]]:
    """Return the rule of an operator that takes a number of tensors like its input, wide as statistics."""

    def rule(tape: Tape, call: OperatorCall) -> tuple[Passing, ...]:
        x = operand(tape, call, "x")
        wide = accumulated_in(x.dtype)
        count = call_with(tape, call, wide != x.dtype)
        return (Passing(0, (prod(x.shape) * wide.itemsize,) * count),) if count else ()

    return rule


def _sums_scratch(tape: Tape, call: OperatorCall, half: bool) -> int:
    weight = call.tensor("weight")
    by_position = weight is not None and is_by_position(
        tape.values[weight].shape, operand(tape, call, "x").shape, call.arguments["dims"]
    )
    return 1 + (half or call.tensor("mask") is not None or by_position)


_RULES: dict[str, Callable[[Tape, OperatorCall], tuple[Passing, ...]]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "batch_norm_backward": _batch_norm_backward,
    "convscope_moments": _own_norm(lambda _tape, _call, _half: 1),
    "convscope_normalise": _own_norm(lambda _tape, _call, half: int(half)),
    "convscope_normalise_sums": _own_norm(_sums_scratch),
    "convscope_normalise_backward": _own_norm(lambda _tape, _call, half: 1 + half),
}

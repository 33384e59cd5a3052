"""Which operators are convolutions, or can be written as one, of the value that they read: a table of rules.

Limits: convolutions whose weights are parameters or buffers; average pooling that counts its padding, or has
none, and doesn't round its output size up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.fold.merge.constants import Run
from convscope.fold.merge.kernel import Geometry, Sizes, pointwise
from convscope.tape import OperatorCall


@dataclass(frozen=True)
class Layer:
    """A call that computes a convolution of one value.

    Attributes:
        source: that value.
        geometry: what it reads.
        weight: returns its weights in float64, in ``geometry.weight_shape``.
        bias: returns its bias in float64, or None.
        held: the value of its weight parameter; None for what only can be written as a convolution.
    """

    source: int
    geometry: Geometry
    weight: Callable[[], Tensor]
    bias: Callable[[], Tensor] | None = None
    held: int | None = None


Rule = Callable[[Run, OperatorCall], Layer | None]

LAYERS: dict[str, Rule] = {}
"""By the operator's name on the tape."""


def layers(*ops: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of some operators."""

    def register(rule: Rule) -> Rule:
        LAYERS.update(dict.fromkeys(ops, rule))
        return rule

    return register


def layer_of(run: Run, call: OperatorCall) -> Layer | None:
    """Return a call as a convolution, or None if it isn't one, or changes the dtype."""
    rule = LAYERS.get(call.op)
    layer = rule(run, call) if rule else None
    if layer is None:
        return None
    read, made = run.tape.values[layer.source], run.tape.values[call.output]
    rank = len(layer.geometry.kernel_size) + 2
    fits = read.dtype == made.dtype and len(read.shape) == len(made.shape) == rank
    return layer if fits and read.shape[1] == layer.geometry.in_channels else None


@layers("convolution")
def convolution(run: Run, call: OperatorCall) -> Layer | None:
    """A convolution with zero padding whose weights the network holds."""
    source, weight, bias = (call.tensor(name) for name in ("input", "weight", "bias"))
    if source is None or weight is None or call.arguments["transposed"] or not run.is_constant(weight):
        return None
    if bias is not None and not run.is_constant(bias):
        return None
    shape, groups = run.tape.values[weight].shape, call.arguments["groups"]
    axes = len(shape) - 2
    stride, padding, dilation = (_sizes(call, name, axes) for name in ("stride", "padding", "dilation"))
    geometry = Geometry(shape[1] * groups, shape[0], tuple(shape[2:]), stride, padding, dilation, groups)
    held_bias = None if bias is None else bias
    return Layer(
        source,
        geometry,
        lambda: run.constant(weight),
        None if held_bias is None else lambda: run.constant(held_bias),
        weight,
    )


@layers("avg_pool2d", "avg_pool3d")
def average_pool(run: Run, call: OperatorCall) -> Layer | None:
    """Average pooling as a depthwise convolution with equal weights.

    Source:
        PyTorch's documentation of ``AvgPool2d``: with ``count_include_pad`` zeros of the padding are counted.
    """
    source, arguments = call.tensor("self"), call.arguments
    axes = 2 if call.op == "avg_pool2d" else 3
    padding, kernel = _sizes(call, "padding", axes), _sizes(call, "kernel_size", axes)
    counts_all = arguments["count_include_pad"] or arguments["divisor_override"] or not any(padding)
    if source is None or arguments["ceil_mode"] or not counts_all:
        return None
    shape = run.tape.values[source].shape
    if len(shape) != axes + 2:
        return None
    stride = _sizes(call, "stride", axes) if arguments["stride"] else kernel
    same = pointwise(shape[1], axes)
    geometry = Geometry(shape[1], shape[1], kernel, stride, padding, same.dilation, shape[1])
    share = 1 / (arguments["divisor_override"] or math.prod(kernel))
    return Layer(source, geometry, lambda: torch.full(geometry.weight_shape, share, dtype=torch.float64))


def _sizes(call: OperatorCall, name: str, axes: int) -> Sizes:
    given = call.arguments[name]
    sizes = (given,) if isinstance(given, int) else tuple(given)
    return sizes * axes if len(sizes) == 1 else sizes

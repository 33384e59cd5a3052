"""Which operators of a network subsample: keep one value of several that they could compute.

Convolutions with a stride, 1×1 shortcuts and patchify stems among them, and max- and average-pools. Each can
be run dense: with stride 1, everything else the same.

Limits: other ways to subsample are named in the second result: slices with a step, adaptive pools to more
than one value, resizing, ``pixel_unshuffle``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.sight.projecting.below import Below
from convscope.sight.stems.spectrum import Stride
from convscope.sight.units.maps import ACTIVATIONS
from convscope.tape import OperatorCall, Tape

Kind = Literal["convolution", "max-pool", "average-pool"]
_KINDS: dict[str, Kind] = {
    "convolution": "convolution",
    "max_pool2d_with_indices": "max-pool",
    "max_pool2d": "max-pool",
    "avg_pool2d": "average-pool",
}
_OTHERS = {
    "adaptive_max_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "fractional_max_pool2d",
    "pixel_unshuffle", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d",
    "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
}  # fmt: skip
_CHUNK = 2**24  # values of a dense map at once


@dataclass(frozen=True)
class Strided:
    """One subsampling operator.

    Attributes:
        name: its module's path, or its address.
        address: its operator's.
        kind: see :data:`Kind`.
        kernel, stride, padding, dilation: (vertical, horizontal).
        groups: of a convolution; 1 for pools.
        options: what else an average-pool was given: count_include_pad, divisor_override.
        activation: of a pool: the address of the activation which made its input; None if none did.
        num_channels: of its output.
        map_size: of its output.
        input_channels: of its input.
    """

    name: str
    address: str
    kind: Kind
    kernel: tuple[int, int]
    stride: Stride
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    options: tuple[bool, int | None]
    activation: str | None
    num_channels: int
    map_size: tuple[int, int]
    input_channels: int

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one dense image, roughly; a pool's comparisons count too."""
        positions = self.map_size[0] * self.stride[0] * self.map_size[1] * self.stride[1]
        inputs = self.input_channels // self.groups if self.kind == "convolution" else 1
        return positions * self.num_channels * inputs * self.kernel[0] * self.kernel[1]

    def dense(self, maps: Tensor, weight: Tensor | None, use: Callable[[Tensor, slice], None]) -> None:
        """Hand over the operator's result with stride 1 and without bias, some channels at a time.

        Args:
            maps: (n, c, h, w), its input.
            weight: a convolution's.
            use: is given maps (n, some channels, h2, w2) in float32 or wider, and which channels they are.
        """
        maps = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
        size = len(maps) * maps.shape[2] * maps.shape[3]
        step = max(1, _CHUNK // max(1, size))
        per_group = self.num_channels // self.groups
        # Chunks begin and end with groups, but for groups that are too large for one chunk.
        step = step // per_group * per_group if step >= per_group else step
        start = 0
        while start < self.num_channels:
            end = min(start + step, self.num_channels)
            if step < per_group:
                end = min(end, (start // per_group + 1) * per_group)
            channels = slice(start, end)
            use(self._some(maps, weight, channels, per_group), channels)
            start = end

    def _some(self, maps: Tensor, weight: Tensor | None, channels: slice, per_group: int) -> Tensor:
        if weight is None:
            part = maps[:, channels]
            if self.kind == "max-pool":
                return F.max_pool2d(part, self.kernel, 1, self.padding, self.dilation)
            return F.avg_pool2d(part, self.kernel, 1, self.padding, False, *self.options)
        first, last = channels.start // per_group, (channels.stop - 1) // per_group + 1
        inputs = weight.shape[1]
        part = maps[:, first * inputs : last * inputs]
        some = weight.detach()[channels].to(maps.dtype)
        return F.conv2d(part, some, None, 1, self.padding, self.dilation, last - first)


def strided_operators(tape: Tape) -> tuple[tuple[Strided, ...], tuple[str, ...]]:
    """Return the subsampling operators in order, and those that can't be run dense, with the reasons.

    Args:
        tape: of one run in evaluation mode.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        >>> found, left_out = strided_operators(record(net, (2, 3, 32, 32)))
        >>> [(each.name, each.kind, each.stride) for each in found]
        [('0', 'convolution', (2, 2)), ('2', 'max-pool', (2, 2))]
    """
    below = Below(tape)
    found, left_out = list[Strided](), list[str]()
    for call in tape.in_phase("forward"):
        if call.outputs[0] is None or not any(below.depends_on_image(value) for value in call.inputs):
            continue
        if reason := _not_covered(tape, call):
            left_out.append(f"{call.address}: {reason}")
        elif call.op in _KINDS and len(tape.values[call.output].shape) == 4:
            operator = strided(tape, call)
            if operator.stride != (1, 1) and not call.arguments.get("transposed"):
                found.append(operator)
    return tuple(found), tuple(left_out)


def strided(tape: Tape, call: OperatorCall) -> Strided:
    """Return what a convolution or pool is, whatever its stride."""
    given, output, maps = call.arguments, tape.values[call.output].shape, tape.values[call.inputs[0]].shape
    kind = _KINDS[call.op]
    weight = tape.values[call.inputs[1]].shape if kind == "convolution" else ()
    kernel = weight[2:] if weight else given["kernel_size"]
    producer = tape.producer(call.inputs[0])
    has_activation = not weight and producer is not None and producer.op in ACTIVATIONS
    paths = [each.address.path for each in tape.in_phase("forward") if each.op == call.op]
    path = call.address.path
    return Strided(
        name=path if paths.count(path) == 1 and path != "self" else str(call.address),
        address=str(call.address),
        kind=kind,
        kernel=_pair(kernel),
        stride=_pair(given["stride"] or kernel),
        padding=_pair(given["padding"]),
        dilation=_pair(given.get("dilation") or 1),
        groups=given.get("groups") or 1,
        options=(bool(given.get("count_include_pad", True)), given.get("divisor_override")),
        activation=str(producer.address) if has_activation and producer is not None else None,
        num_channels=output[1],
        map_size=(output[2], output[3]),
        input_channels=maps[1],
    )


def _not_covered(tape: Tape, call: OperatorCall) -> str:
    """Why an operator subsamples in a way that isn't measured; empty if it doesn't."""
    before, after = (tape.values[value].shape for value in (call.inputs[0], call.output))
    if len(before) != 4 or len(after) != 4:
        return ""
    if call.op == "slice" and (call.arguments.get("step") or 1) > 1 and call.arguments["dim"] % 4 > 0:
        return "a slice with a step isn't run dense"
    smaller = after[2] < before[2] or after[3] < before[3]
    if call.op in _OTHERS and smaller and after[2:] != (1, 1):
        return f"{call.op} from {before[2:]} to {after[2:]} isn't run dense"
    return ""


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])

"""Which pixels a position sees, for any graph, by one backward pass in which nothing cancels or is shut.

The recorded operators give most layers a receptive field that is the same at every position
(:mod:`convscope.tape.receptive_field`). Behind upsampling, or where branches of different strides meet, it
differs from position to position. Here a signal goes back through the network itself, with positive weights
in the place of its own, activations passed as if they weren't there, max-pools spread over their windows and
gates and statistics frozen as under the rule ``gated``; after every convolution it is set to 0 or 1, so that
it neither dies out nor overflows. The pixels that it comes to are those that the position sees.

Limits: operators without a rule have their own derivative, which may miss pixels; no boxes then.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.probe import Probe, Visit
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.gates import BACKWARDS
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import at_position, projecting
from convscope.tape import Tape

_OPEN = (*BACKWARDS, "threshold_backward")


def reach(
    model: nn.Module,
    tape: Tape,
    value: int,
    positions: Sequence[tuple[int, ...]],
    image: Tensor,
) -> list[Box] | None:
    """Return the smallest boxes that hold all pixels which positions of a value see.

    Args:
        model: the network, which comes back as it was.
        tape: of a run of it on images of that size.
        value: the maps, of which all channels are taken together.
        positions: (y, x) each.
        image: (1, c, h, w), of which only shape, dtype and device count.

    Returns:
        The boxes, clamped to the image; None where an operator on the way has no rule.

    Example:
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Upsample(scale_factor=2))
        >>> tape = record(net, (1, 3, 11, 11))
        >>> reach(net, tape, tape.outputs[0], [(0, 0), (1, 2)], torch.zeros(1, 3, 11, 11))
        [Box(top=0, left=0, bottom=3, right=3), Box(top=0, left=2, bottom=3, right=5)]
    """
    below, producer = Below(tape), tape.producer(value)
    if producer is None or below.without_rule(value, "gated") or not _passes_switches(below, value):
        return None
    found: list[Box] = []
    weights: dict[Tensor, Tensor] = {
        tensor: _positive(tensor) for tensor in model.parameters() if tensor.is_floating_point()
    }
    with projecting(model, tape, "gated", also=_install) as projector, projector.standing_in(weights):
        leaves, maps = projector.forward(str(producer.address), torch.ones_like(image))
        for position in positions:
            seed = torch.zeros_like(maps)
            at_position(seed, position).fill_(1)
            found.append(_box(projector.backward(leaves, maps, seed, keep=True)[0]))
    return found


def _install(probe: Probe) -> None:
    for op in _OPEN:
        probe.around(op, _opened)
    probe.around("convolution_backward", _set_to_one)
    probe.around("max_pool2d_with_indices_backward", _spread)


def _opened(visit: Visit) -> Any:
    """An activation hands on the whole signal."""
    signal = visit.args[0].abs()
    return (signal, None) if visit.site.op == "_prelu_kernel_backward" else signal


def _set_to_one(visit: Visit) -> Any:
    below, *rest = visit.run()
    return ((below != 0).to(below.dtype), *rest)


def _spread(visit: Visit) -> Any:
    """A max-pool hands the signal on to all that it chose from."""
    signal, given, kernel, stride, padding, dilation, _, _ = visit.args
    channels, kernel, stride = given.shape[1], _pair(kernel), _pair(stride or kernel)
    padding, dilation = _pair(padding), _pair(dilation)
    ones = signal.new_ones(channels, 1, *kernel)
    below = F.conv_transpose2d(signal, ones, None, stride, 0, 0, channels, dilation)
    missing = [
        max(0, size + pad - have) for size, pad, have in zip(given.shape[2:], padding, below.shape[2:])
    ]
    below = F.pad(below, (0, missing[1], 0, missing[0]))
    (top, left), (height, width) = padding, given.shape[2:]
    return below[:, :, top : top + height, left : left + width]


def _passes_switches(below: Below, value: int) -> bool:
    """Whether every max-pool on the way is one that can be spread."""
    switches = [call for call in below.path_to(value, "gated") if below.role(call) == "switch"]
    return all(call.op == "max_pool2d_with_indices" for call in switches)


def _positive(weight: Tensor) -> Tensor:
    """A mean over what a filter takes in, or ones."""
    fan_in = weight[0].numel() if weight.dim() > 1 and len(weight) else 1
    return torch.full_like(weight, 1 / fan_in, requires_grad=False)


def _box(signal: Tensor) -> Box:
    seen = signal.abs().sum(0) > 0
    rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
    if not len(rows):
        return Box(0, 0, *seen.shape)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _pair(setting: Any) -> tuple[int, int]:
    first, *rest = [setting] if isinstance(setting, int) else list(setting)
    return first, rest[0] if rest else first

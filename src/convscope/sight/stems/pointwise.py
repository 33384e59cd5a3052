"""What a convolution's output goes through, value by value, before it is a unit: scale, shift, activation.

Such operators commute with subsampling: every s-th value of the activated dense map is the network's own map.
So they can be applied to the dense map, which shows the frequencies that a ReLU adds; and the scale, gamma /
sqrt(var + eps) for a batch norm, is what makes filters' weights comparable.

Limits: normalisations by statistics of the image (group, layer, instance norm) aren't value by value; there
is then no scale and no activated map.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.probe import Probe, Visit
from convscope.sight.projecting.below import Below
from convscope.sight.units.maps import ACTIVATIONS
from convscope.tape import OperatorCall, Tape

_AFFINE = {"mul", "mul_", "add", "add_", "sub", "sub_", "rsub", "neg", "neg_", "div", "div_"}


@dataclass(frozen=True)
class Pointwise:
    """Per channel, the last values x become f(scale · x + shift).

    Attributes:
        scale, shift: (o,), of the convolution without its bias, which is in the shift; float64.
        activation: f, for some of the channels; None if there is none.
    """

    scale: Float[Tensor, " o"]
    shift: Float[Tensor, " o"]
    activation: Callable[[Tensor, slice], Tensor] | None

    def activated(self, maps: Tensor, channels: slice) -> Tensor:
        """Return f(scale · x + shift) of maps (n, some channels, h, w)."""
        assert self.activation is not None
        scale, shift = (each[channels, None, None].to(maps) for each in (self.scale, self.shift))
        return self.activation(maps * scale + shift, channels)


@dataclass
class Chain:
    """The operators between a convolution and its units, which learns their arguments in a run.

    Attributes:
        convolution: its address.
        calls: the recorded operators, in order; None if one of them isn't value by value.
        dependent: per operator, the position of the tensor that comes from the convolution.
        num_channels: of the convolution.
    """

    convolution: str
    calls: tuple[OperatorCall, ...] | None
    dependent: tuple[int, ...]
    num_channels: int
    _given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def watch(self, probe: Probe) -> None:
        """Let the chain see its operators' arguments in the runs to come."""
        for address in (self.convolution, *(str(call.address) for call in self.calls or ())):
            probe.read(address, lambda visit, _: self._see(visit))

    def pointwise(self) -> Pointwise | None:
        """Return what the operators do, once they have run; None if that isn't value by value."""
        if self.calls is None or self.convolution not in self._given:
            return None
        bias = self._given[self.convolution][0][2]
        shift = torch.zeros(self.num_channels) if bias is None else bias.detach()
        ends = [shift.double(), shift.double() + 1]
        linear = [call for call in self.calls if call.op not in ACTIVATIONS]
        for index, call in enumerate(linear):
            ends = [self._run(call, index, end[None, :, None, None]).flatten() for end in ends]
        last = self.calls[-1] if len(self.calls) > len(linear) else None
        return Pointwise(ends[1] - ends[0], ends[0], None if last is None else self._activation(last))

    def _see(self, visit: Visit) -> None:
        self._given.setdefault(str(visit.site.address), (visit.args, visit.kwargs))

    def _run(self, call: OperatorCall, index: int, maps: Tensor) -> Tensor:
        args, kwargs = self._given[str(call.address)]
        wide = [_wide(arg, maps) for arg in args]
        wide[self.dependent[index]] = maps.clone()
        result = _function(call)(*wide, **kwargs)
        first: Tensor = result[0] if isinstance(result, tuple) else result
        return first

    def _activation(self, call: OperatorCall) -> Callable[[Tensor, slice], Tensor]:
        args, kwargs = self._given[str(call.address)]
        function = _function(call)

        def apply(maps: Tensor, channels: slice) -> Tensor:
            some = [_part(_wide(arg, maps), channels, self.num_channels) for arg in args[1:]]
            result: Tensor = function(maps, *some, **kwargs)
            return result

        return apply


def chain_of(tape: Tape, convolution: OperatorCall, units: int) -> Chain:
    """Return the operators between a convolution and the value that holds its units.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> tape = record(net, (2, 3, 9, 9))
        >>> [call.op for call in chain_of(tape, tape.calls[0], tape.outputs[0]).calls]
        ['batch_norm', 'relu']
    """
    below, calls, value = Below(tape), list[OperatorCall](), units
    positions = list[int]()
    whole: bool = True
    while value != convolution.output:
        call = tape.producer(value)
        inputs = [] if call is None else [v for v in call.inputs if below.depends_on_image(v)]
        if call is None or len(inputs) != 1 or not _is_pointwise(tape, call, inputs[0]):
            whole = False
            break
        calls.insert(0, call)
        positions.insert(0, _position(call, inputs[0]))
        value = inputs[0]
    num_channels = tape.values[convolution.output].shape[1]
    return Chain(str(convolution.address), tuple(calls) if whole else None, tuple(positions), num_channels)


def _is_pointwise(tape: Tape, call: OperatorCall, value: int) -> bool:
    if call.op == "batch_norm":
        return call.arguments.get("training") is False or "no_training" in call.overload
    others = [tape.values[each].shape for each in call.inputs if each != value]
    per_channel = all(len(shape) == 0 or (len(shape) >= 3 and shape[-2:] == (1, 1)) for shape in others)
    return call.op in ACTIVATIONS | _AFFINE and per_channel


def _position(call: OperatorCall, value: int) -> int:
    """Where in an operator's arguments the value stands."""
    return next(
        (
            index
            for index, each in enumerate(call.arguments.values())
            if getattr(each, "value", None) == value
        ),
        0,
    )


def _function(call: OperatorCall) -> Callable[..., Any]:
    _, name, overload = call.overload.split(".")
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
    return function


def _wide(argument: Any, maps: Tensor) -> Any:
    is_number = isinstance(argument, Tensor) and argument.is_floating_point()
    return argument.detach().to(maps.dtype) if is_number else argument


def _part(argument: Any, channels: slice, num_channels: int) -> Any:
    """Some channels of an activation's own parameter, (…, o, 1, 1)."""
    if isinstance(argument, Tensor) and argument.dim() >= 3 and argument.shape[-3] == num_channels:
        return argument[..., channels, :, :]
    return argument

"""A shift before a layer that pads with zeros: what takes the place of the zeros, so that it may go in.

Where x becomes a x + b, zeros around x become b. ``border="map"`` keeps the zeros and gives each position of
the output its own bias: the sum of the shift over those taps of the kernel that lie on x, not on zeros.
``border="pad"`` pads with b.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convscope.fold.edits import Swap
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import Labels
from convscope.fold.layers.bordered import WITH_BIAS_MAP, WITH_BORDER, PadWithBorder
from convscope.fold.options import Border, Options
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, path_of
from convscope.tape import OperatorCall

REMEDY = (
    "border='map' (--border map): a bias for each position, for one input size; or border='pad' "
    "(--border pad): padding with the shift, for any size"
)
_PADS = (
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
)


@dataclass(frozen=True)
class ZeroBorder:
    """A convolution's border of zeros.

    Attributes:
        path: the convolution's module.
        how: what to do about it; see :data:`convscope.fold.options.Border`.
        pads: zeros before and after, along each spatial axis.
        input_size: the sizes that it was recorded with; empty where they don't matter.
        kernel_size, stride, dilation: along each spatial axis.
    """

    path: str
    how: Border
    pads: tuple[tuple[int, int], ...]
    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def sums(self, taps: Tensor) -> Tensor:
        """Return, for each output position, the sum over the taps of the kernel that lie on the input.

        Args:
            taps: float64, (C_out, taps).

        Returns:
            float64, (C_out, H_out, W_out).
        """
        sums = taps.reshape(-1, *self.kernel_size)
        for axis in range(len(self.kernel_size)):
            sums = torch.tensordot(sums, self._on_input(axis), dims=([1], [1]))
        return sums

    def _on_input(self, axis: int) -> Tensor:
        """Whether a tap lies on the input, for each output position along an axis: (outputs, taps)."""
        (before, after), size = self.pads[axis], self.input_size[axis]
        reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
        num_outputs = (before + size + after - reach) // self.stride[axis] + 1
        first = torch.arange(num_outputs) * self.stride[axis] - before
        place = first[:, None] + torch.arange(self.kernel_size[axis]) * self.dilation[axis]
        return ((place >= 0) & (place < size)).double()

    def swap(self, numbers: Tensor) -> Swap:
        """Return the edit after which zeros stand for a shift.

        Args:
            numbers: float64; ``map``: the bias, (C_out, H_out, W_out); ``pad``: the shift, (C_in,).
        """
        return Swap(self.path, _Make(self, numbers))


@dataclass(frozen=True)
class _Make:
    """Makes the module for a convolution's place."""

    border: ZeroBorder
    numbers: Tensor

    def __call__(self, convolution: Any) -> nn.Module:
        if self.border.how == "map":
            made = WITH_BIAS_MAP[type(convolution)]
            size, path = self.border.input_size, self.border.path
            return made(convolution, self.numbers[None], size, path)  # type: ignore[no-any-return]
        pads = [size for pair in self.border.pads for size in pair]
        return WITH_BORDER[type(convolution)](convolution, self.numbers, pads)  # type: ignore[no-any-return]


def pads_with_zeros(flow: Flow, constants: Constants, call: OperatorCall) -> bool:
    """Whether a convolution sees zeros around its input that its own module puts there."""
    return any(call.arguments["padding"]) or _uneven(flow, constants, call) is not None


def border_of(
    flow: Flow,
    constants: Constants,
    options: Options,
    call: OperatorCall,
    plain: type[nn.Module] | None = None,
) -> ZeroBorder:
    """Return the border of a convolution that pads with zeros.

    Args:
        flow: the recording and the network.
        constants: its constants.
        options: what the user chose.
        call: the convolution.
        plain: the class of what takes its module's place before, if something does.

    Raises:
        Stays: nothing can take the place of the zeros, or the user doesn't want it.
    """
    why = f"{call.address} pads with zeros, where a shift would show"
    module_call = None if call.module is None else flow.tape.modules[call.module]
    if module_call is None or not path_of(module_call):
        raise Stays(f"{why}, in the network's own code")
    found = plain or _class_of(flow.module_of(module_call))
    if found not in WITH_BORDER:
        raise Stays(f"{why}, in code of its own ({module_call.type_name})")
    if options.border == "keep":
        raise Stays(why, REMEDY)
    uneven = _uneven(flow, constants, call)  # then x is what was there before
    value = call.tensor("input") if uneven is None else uneven.tensor("self")
    weight = call.tensor("weight")
    assert value is not None
    assert weight is not None
    kernel_size = flow.tape.values[weight].shape[2:]
    more = [0] * 2 * len(kernel_size)
    if uneven is not None:
        more[: len(uneven.arguments["pad"])] = uneven.arguments["pad"]
    even = call.arguments["padding"]
    pads = [(p + a, p + b) for p, a, b in zip(even, more[::2][::-1], more[1::2][::-1], strict=True)]
    size = flow.tape.values[value].shape[2:] if options.border == "map" else ()
    steps = (tuple(call.arguments[name]) for name in ("stride", "dilation"))
    return ZeroBorder(path_of(module_call), options.border, tuple(pads), size, kernel_size, *steps)


def _class_of(module: nn.Module) -> type[nn.Module]:
    """A module's class, or the one that it had before it was parametrised."""
    parametrised = parametrize.is_parametrized(module)
    return type(module).__bases__[0] if parametrised else type(module)


def _uneven(flow: Flow, constants: Constants, call: OperatorCall) -> OperatorCall | None:
    """The call that pads for a convolution whose ``padding="same"`` isn't alike on both sides."""
    value = call.tensor("input")
    maker = None if value is None else constants.maker(value)
    if maker is None or maker.op != "constant_pad_nd" or maker.module != call.module:
        return None
    return maker if is_own_padding(flow, maker) else None


def is_own_padding(flow: Flow, call: OperatorCall) -> bool:
    """Whether an operator pads inside one of PyTorch's convolutions, which goes on with what it made."""
    return (
        call.module is not None and _class_of(flow.module_of(flow.tape.modules[call.module])) in WITH_BORDER
    )


@dataclass(frozen=True)
class ZeroPad:
    """A module that pads with zeros.

    Attributes:
        path: the module's path.
        pads: zeros before and after, for each axis behind the channels, the first one first.
        labels: of its channels, (C,).
    """

    path: str
    pads: tuple[int, ...]
    labels: Labels

    def edit(self, gauges: Gauges) -> Callable[[nn.Module], None] | None:
        """Return the edit that pads with the shift of its labels; None if that is 0."""
        _, shift = gauges.of(self.labels)
        return _Pad(self, shift) if bool((shift != 0).any()) else None


@dataclass(frozen=True)
class _Pad:
    """Puts a padding with numbers per channel in the place of one with zeros."""

    pad: ZeroPad
    shift: Tensor

    def __call__(self, model: nn.Module) -> None:
        like = next(each for each in (*model.parameters(), *model.buffers()) if each.is_floating_point())
        border = self.shift.reshape(-1, *(1,) * (len(self.pad.pads) // 2)).to(like.device, like.dtype)
        Swap(self.pad.path, lambda _: PadWithBorder(border, self.pad.pads))(model)


def zero_pad_of(flow: Flow, options: Options, call: OperatorCall, labels: Labels | None) -> ZeroPad:
    """Return a module of PyTorch's own that pads with zeros.

    Args:
        flow: the recording and the network.
        options: what the user chose.
        call: the padding.
        labels: of the channels, (C,); None if labels change along other axes.

    Raises:
        Stays: it is none, or the user doesn't want another border.
    """
    why = f"{call.address} pads with zeros, which no shift moves"
    if labels is None or call.module is None:
        raise Stays(why)
    module_call = flow.tape.modules[call.module]
    path, module = path_of(module_call), flow.module_of(module_call)
    if is_own_padding(flow, call):
        raise Stays(why, REMEDY)
    if type(module) not in _PADS or not path:
        raise Stays(why)
    if len(flow.calls_of_module(path)) > 1:
        raise Stays(f"{why}, and is called more than once")
    given = list(call.arguments["pad"])
    shape = flow.tape.values[call.inputs[0]].shape
    missing = 2 * (len(shape) - 2) - len(given)
    if missing < 0 or min(given) < 0:
        raise Stays(f"{why}, and cuts something off")
    if options.border == "keep":
        raise Stays(why, REMEDY)
    given += [0] * missing
    pads = [size for pair in zip(given[::2][::-1], given[1::2][::-1], strict=True) for size in pair]
    return ZeroPad(path, tuple(pads), labels)

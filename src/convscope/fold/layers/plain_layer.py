"""Layers of PyTorch's own in the place of modules that compute the weights of one linear operator.

Whether one does the same as the module is tried in float64 on random inputs of several sizes: a recording
tells the padding for one size only, and modules that pad as TensorFlow does pad each size differently.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.fold.layers.materialised import Plain, refuse_training
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, addresses, has_hooks, path_of
from convscope.fold.recorded.slots import Slot
from convscope.tape import ModuleCall, OperatorCall

_PADS = {"constant_pad_nd": "zeros"} | {
    f"{name}_pad{rank}d": mode
    for name, mode in (("reflection", "reflect"), ("replication", "replicate"))
    for rank in (1, 2, 3)
}
_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "alias", "t"}
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_TOLERANCE = 1e-9


class SamePadConv2d(nn.Conv2d):
    """A convolution that pads with zeros as TensorFlow's "SAME" does: ⌈size / stride⌉ outputs, more behind.

    Source: TensorFlow's documentation of ``tf.nn.convolution``, "padding".

    Example:
        >>> SamePadConv2d(1, 1, 3, stride=2)(torch.zeros(1, 1, 4, 5)).shape
        torch.Size([1, 1, 2, 3])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        high = _same(input.shape[-2], self.kernel_size[0], self.stride[0], self.dilation[0])
        wide = _same(input.shape[-1], self.kernel_size[1], self.stride[1], self.dilation[1])
        padded = F.pad(input, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
        output: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return output


def _same(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How many zeros "SAME" adds along one axis."""
    return max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def plain_layer_of(
    flow: Flow, constants: Constants, call: OperatorCall, values: tuple[int, int | None]
) -> Plain:
    """Return how the module that runs a linear operator becomes a plain layer.

    Args:
        flow: the recording and the network.
        constants: its constants.
        call: the linear operator.
        values: what it reads as W and as b.

    Raises:
        Stays: the module does more than that, or isn't alone in reading its parameters, or does something
            else on other sizes.
    """
    module_call = None if call.module is None else flow.tape.modules[call.module]
    path = "" if module_call is None else path_of(module_call)
    if module_call is None or not path:
        raise Stays(f"the weight of {call.address} is computed in the network's own code")
    refuse_training(flow, path, call)
    pads = _refuse_more(flow, constants, module_call, call)
    weight, bias = values
    form = _Form(call, constants.numbers(weight), None if bias is None else constants.numbers(bias), pads)
    module = flow.module_of(module_call)
    for candidate in form.candidates():
        if _does_the_same(module, candidate):
            held = {Slot(path, "weight"): candidate.weight}
            if candidate.bias is not None:
                held[Slot(path, "bias")] = candidate.bias
            slot = Slot(path, "bias")
            becomes = type(candidate._layer())
            return Plain(Slot(path, "weight"), not candidate.is_convolution, slot, held, candidate, becomes)
    raise Stays(f"{path} computes its weight and does more than any layer of PyTorch's own with it")


def _refuse_more(
    flow: Flow, constants: Constants, module_call: ModuleCall, call: OperatorCall
) -> tuple[OperatorCall, ...]:
    """Refuse a module that does more than pad and run one linear operator; return what pads."""
    path, module = path_of(module_call), flow.module_of(module_call)
    who = f"{module_call.address} computes the weight of {call.address}"
    inside = list(_inside(flow, module_call))
    moving = [each for each in inside if not all(constants.holds(value) for value in each.inputs)]
    others = [each for each in moving if each is not call and each.op not in _PADS.keys() | _VIEWS]
    if others:
        raise Stays(f"{who} and does more: {addresses(others)}")
    if len(module_call.inputs) != 1 or len(module_call.outputs) != 1:
        raise Stays(f"{who}, but isn't given one tensor to return one")
    if any(has_hooks(each) for each in module.modules()):
        raise Stays(f"{who} and has hooks")
    for again in flow.calls_of_module(path):
        if [each.overload for each in _inside(flow, again)] != [each.overload for each in inside]:
            raise Stays(f"{who}, but does something else at {again.address}")
    _refuse_readers(flow, path, who)
    return tuple(each for each in moving if each.op in _PADS)


def _inside(flow: Flow, module_call: ModuleCall) -> Iterator[OperatorCall]:
    """The operator calls of a module call, its submodules' among them."""
    yield from flow.operators_of(module_call)
    for child in flow.children_of(module_call):
        yield from _inside(flow, child)


def _refuse_readers(flow: Flow, path: str, who: str) -> None:
    """Refuse if code outside a module reads its parameters."""
    names = {f"{path}.{name}" for name, _ in flow.model.get_submodule(path).named_parameters()}
    storages = {info.storage for info in flow.tape.parameters if info.name in names}
    first = {each.storage: each.index for each in reversed(flow.tape.values) if each.storage in storages}
    for value in first.values():
        owners = {slot.path for slot in flow.slots_of(value)}
        for reader in flow.readers_of_storage(value):
            where = "" if reader.module is None else path_of(flow.tape.modules[reader.module])
            if not f"{where}.".startswith(f"{path}.") and where not in owners:
                raise Stays(f"{who} from parameters that {reader.address} reads too")


@dataclass(frozen=True)
class _Form:
    """One linear operator as it ran, and the layers that it may have been.

    Attributes:
        call: the operator.
        read_weight: W as the operator reads it, float64.
        bias: b, float64, or None.
        pads: what padded its input before.
        same: whether zeros are added as TensorFlow does, whatever the operators added.
        padding: what the padding before added on both sides along each axis; None if nothing, or not alike.
    """

    call: OperatorCall
    read_weight: Tensor
    bias: Tensor | None
    pads: tuple[OperatorCall, ...] = ()
    same: bool = False
    padding: tuple[int, ...] | None = None

    @property
    def is_convolution(self) -> bool:
        """Whether it is one; else it is a matrix product."""
        return self.call.op == "convolution"

    @cached_property
    def weight(self) -> Tensor:
        """W as the layer holds it."""
        return self.read_weight if self.is_convolution else self.read_weight.mT

    def candidates(self) -> Iterator["_Form"]:
        """Yield the layers that it may have been."""
        if not self.pads:
            yield self
            return
        if len(self.pads) > 1 or not self.is_convolution or any(self.call.arguments["padding"]):
            return
        given: Any = self.pads[0].arguments
        pads = list(given["pad"] if "pad" in given else given["padding"])
        pads += [0, 0] * (self.read_weight.dim() - 2 - len(pads) // 2)
        if len(pads) > 2 * (self.read_weight.dim() - 2):
            return
        if pads[::2] == pads[1::2]:
            yield replace(self, padding=tuple(pads[::2][::-1]))
        if _PADS[self.pads[0].op] == "zeros" and self.read_weight.dim() == 4:
            yield replace(self, same=True)

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return the layer in a module's place: with its dtype, on its device."""
        like = next(each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point())
        made = self._layer().to_empty(device=like.device).to(like.dtype)
        wants_grad = any(parameter.requires_grad for parameter in module.parameters())
        with torch.no_grad():
            made.weight.copy_(self.weight)  # type: ignore[operator]
            if self.bias is not None:
                made.bias.copy_(self.bias)  # type: ignore[operator]
        return made.requires_grad_(wants_grad)

    def _layer(self) -> nn.Module:
        """The layer, without memory: to make it draws no random numbers."""
        weight, has_bias = self.weight, self.bias is not None
        if not self.is_convolution:
            return nn.Linear(weight.shape[1], weight.shape[0], has_bias, device="meta")
        given = self.call.arguments
        sizes: Any = {"kernel_size": tuple(weight.shape[2:])}
        sizes |= {name: tuple(given[name]) for name in ("stride", "dilation", "padding")}
        sizes |= {"groups": given["groups"], "bias": has_bias, "device": "meta"}
        per_group, rank = weight.shape[1] * given["groups"], weight.dim() - 2
        if given["transposed"]:
            pair = (weight.shape[0], per_group)
            sizes |= {"output_padding": tuple(given["output_padding"])}
            return _TRANSPOSED[rank](*pair, **sizes)
        pair = (per_group, weight.shape[0])
        if self.same:
            return SamePadConv2d(*pair, **sizes)
        if self.padding is not None:
            sizes |= {"padding": self.padding, "padding_mode": _PADS[self.pads[0].op]}
        return _CONVOLUTIONS[rank](*pair, **sizes)


@torch.no_grad()
def _does_the_same(module: nn.Module, form: _Form) -> bool:
    """Whether a layer does what a module does, on random inputs of several sizes."""
    generator = torch.Generator().manual_seed(0)
    for shape in _shapes(form):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        try:
            before = copy.deepcopy(module).cpu().double()
            y0, y = before(x), form(before)(x)
        except Exception:  # code that takes other arguments, or isn't for copies
            return False
        if not isinstance(y0, Tensor) or y0.shape != y.shape:
            return False
        if not torch.allclose(y, y0, rtol=0, atol=_TOLERANCE * max(1.0, y0.abs().max().item())):
            return False
    return True


def _shapes(form: _Form) -> Iterator[tuple[int, ...]]:
    """Sizes for which the rest of size / stride takes several values, other ones along each axis."""
    weight, given = form.weight, form.call.arguments
    if not form.is_convolution:
        yield from ((3, weight.shape[1]), (2, 4, weight.shape[1]))
        return
    channels = weight.shape[0] if given["transposed"] else weight.shape[1] * given["groups"]
    reach = [
        (size - 1) * dilation + 1 + stride
        for size, dilation, stride in zip(weight.shape[2:], given["dilation"], given["stride"], strict=True)
    ]
    for more in range(min(max(given["stride"]) + 1, 4)):
        yield (1, channels, *(size + more + axis for axis, size in enumerate(reach)))

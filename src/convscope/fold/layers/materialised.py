"""Weights that are computed in every run, from parameters and buffers alone, and how they become plain.

PyTorch's parametrisations (weight norm, spectral norm, orthogonal) and the older hooks of the same purpose
are taken off a module, which keeps its class. Any other module whose call is one linear operator with such
weights becomes a layer of PyTorch's own; see :mod:`convscope.fold.layers.plain_layer`.

Source: PyTorch's documentation of ``torch.nn.utils.parametrize``; Salimans and Kingma, "Weight
Normalization", arXiv 1602.07868; Miyato et al., "Spectral Normalization", arXiv 1802.05957.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from convscope.fold.edits import Swap
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, addresses, path_of
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall

REMEDY = "materialise=True (--materialise): the computed weights become plain parameters"
_PARAMETRISED = ".parametrizations."


@dataclass(frozen=True, eq=False)
class Plain:
    """How the computed weights of a module become parameters.

    Attributes:
        weight: where W will be held.
        is_transposed: whether the operator reads the transpose of what is held there.
        bias: where b will be held; None if b isn't computed.
        numbers: float64, by place, as they are held there.
        make: given the module, returns it, or what takes its place, with parameters in these places.
        becomes: the class of what takes its place; None if the module stays.
    """

    weight: Slot
    is_transposed: bool
    bias: Slot | None
    numbers: dict[Slot, Tensor]
    make: Callable[[Any], nn.Module]
    becomes: type[nn.Module] | None = None

    def agrees(self, other: "Plain | None") -> bool:
        """Whether another call of the module has computed the same."""
        if other is None or self.numbers.keys() != other.numbers.keys():
            return False
        same = all(torch.equal(tensor, other.numbers[slot]) for slot, tensor in self.numbers.items())
        return same and (self.is_transposed, self.becomes) == (other.is_transposed, other.becomes)

    def __call__(self, model: nn.Module) -> None:
        """Let a network hold parameters in these places."""
        Swap(self.weight.path, self.make)(model)


def is_computed(flow: Flow, value: int) -> bool:
    """Whether a weight is no parameter, nor the transpose of one."""
    is_held = flow.is_whole(value) or flow.is_transposed(value)
    return not is_held or not flow.is_parameter(value)


def attribute_of(
    flow: Flow, constants: Constants, call: OperatorCall, values: tuple[int, int | None]
) -> Plain | None:
    """Return how a parametrised or hooked module comes to hold plain weights; None if it is none of these.

    Args:
        flow: the recording and the network.
        constants: its constants.
        call: the linear operator.
        values: what it reads as W, and as b if b is computed.

    Raises:
        Stays: the weights change in training mode, others read them too, or their numbers aren't known.
    """
    found = [_Attribute.of(flow, constants, call, value) for value in values if value is not None]
    if any(attribute is None for attribute in found):
        return None
    known = [attribute for attribute in found if attribute is not None]
    if len({attribute.slot.path for attribute in known}) != 1:
        return None
    for attribute in known:
        attribute.refuse_others(flow, call)
    refuse_training(flow, known[0].slot.path, call)
    numbers = {each.slot: constants.numbers(each.value) for each in known}
    bias = known[1].slot if len(known) > 1 else None
    return Plain(
        known[0].slot, known[0].is_transposed, bias, numbers, Unwrap(tuple(n.attribute for n in numbers))
    )


def refuse_training(flow: Flow, path: str, call: OperatorCall) -> None:
    """Refuse weights of a module in training mode.

    Raises:
        Stays: it is.
    """
    if any(module.training for module in flow.model.get_submodule(path).modules()):
        raise Stays(
            f"the weight of {call.address} is computed by a module in training mode; call eval() on it"
        )


@dataclass(frozen=True)
class _Attribute:
    """A computed tensor that a module's code reads under a name.

    Attributes:
        slot: the module and the name.
        value: on the tape.
        is_transposed: whether the operator reads the transpose.
    """

    slot: Slot
    value: int
    is_transposed: bool

    @classmethod
    def of(cls, flow: Flow, constants: Constants, call: OperatorCall, value: int) -> "_Attribute | None":
        maker = constants.maker(value)
        is_transposed = maker is not None and maker.op == "t"
        value = maker.inputs[0] if maker is not None and is_transposed else value
        slot = _parametrised(flow, constants, value) or _hooked(flow, constants, call, value)
        return None if slot is None else cls(slot, value, is_transposed)

    def refuse_others(self, flow: Flow, call: OperatorCall) -> None:
        """Refuse a tensor that others than this module's operator read."""
        path = f"{self.slot.path}{_PARAMETRISED}{self.slot.attribute}".removeprefix(".")
        made = {self.value, *(value for each in flow.calls_of_module(path) for value in each.outputs)}
        others = [
            reader for value in made for reader in _readers(flow, value) if not _is_alike(flow, reader, call)
        ]
        if others:
            raise Stays(f"the computed {self.slot.name} is also read by {addresses(others)}")


def _readers(flow: Flow, value: int) -> Iterator[OperatorCall]:
    """The calls that read a value, or its transpose."""
    for reader in flow.tape.consumers(value):
        if reader.op == "t":
            yield from flow.tape.consumers(reader.output)
        else:
            yield reader


def _is_alike(flow: Flow, reader: OperatorCall, call: OperatorCall) -> bool:
    """Whether a call is the same operator in the code of the same module."""
    if reader.module is None or call.module is None or reader.op != call.op:
        return False
    one, other = (flow.module_of(flow.tape.modules[each]) for each in (reader.module, call.module))
    return one is other


def _parametrised(flow: Flow, constants: Constants, value: int) -> Slot | None:
    """The parametrised tensor that a value is."""
    maker = constants.maker(value)
    index = None if maker is None else maker.module
    while index is not None:
        module_call = flow.tape.modules[index]
        head, found, name = f".{path_of(module_call)}".rpartition(_PARAMETRISED)
        if found and "." not in name:
            return Slot(head.removeprefix("."), name) if module_call.outputs == (value,) else None
        index = module_call.parent
    return None


def _hooked(flow: Flow, constants: Constants, call: OperatorCall, value: int) -> Slot | None:
    """The tensor that a hook before a module's forward computes, if a value is one."""
    if call.module is None:
        return None
    module_call = flow.tape.modules[call.module]
    path = path_of(module_call)
    for hook in flow.module_of(module_call)._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            roots = [flow.slots_of(root) for root in _roots(constants, value)]
            if roots and all(_belongs(slots, path, f"{hook.name}_") for slots in roots):
                return Slot(path, hook.name)
    return None


def _belongs(slots: tuple[Slot, ...], path: str, prefix: str) -> bool:
    return any(slot.path == path and slot.attribute.startswith(prefix) for slot in slots)


def _roots(constants: Constants, value: int) -> set[int]:
    """The values from which a constant is computed."""
    roots, left, seen = set[int](), [value], {value}
    while left:
        each = left.pop()
        maker = constants.maker(each)
        if maker is None:
            roots.add(each)
            continue
        left += [read for read in maker.inputs if read not in seen]
        seen.update(maker.inputs)
    return roots


@dataclass(frozen=True)
class Unwrap:
    """Takes parametrisations, or the older hooks, off tensors of a module, which holds plain ones then.

    ``remove_parametrizations`` would take them off a copy's original too, since copies share the class that
    carries them; and it would write through to parameters that are tied.

    Attributes:
        names: of the tensors.
    """

    names: tuple[str, ...]

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return the module."""
        for name in self.names:
            hooks = module._forward_pre_hooks.values()
            if any(isinstance(hook, WeightNorm) and hook.name == name for hook in hooks):
                _unhook(module, name, remove_weight_norm)
            elif any(isinstance(hook, SpectralNorm) and hook.name == name for hook in hooks):
                _unhook(module, name, remove_spectral_norm)
            else:
                _unparametrise(module, name)
        return module


def _unparametrise(module: nn.Module, name: str) -> None:
    tensors = module.parametrizations
    assert isinstance(tensors, nn.ModuleDict)
    numbers = getattr(module, name).detach().clone()
    wants_grad = any(parameter.requires_grad for parameter in tensors[name].parameters())
    del tensors[name]
    wrapped = type(module)
    if len(tensors):
        rest = {key: item for key, item in vars(wrapped).items() if key != name}
        module.__class__ = type(wrapped.__name__, wrapped.__bases__, rest)
    else:
        del module.parametrizations
        module.__class__ = wrapped.__bases__[0]
    module.register_parameter(name, nn.Parameter(numbers, requires_grad=wants_grad))


def _unhook(module: nn.Module, name: str, remove: Callable[[nn.Module, str], nn.Module]) -> None:
    held = [item for key, item in module._parameters.items() if key.startswith(f"{name}_")]
    wants_grad = any(parameter is not None and parameter.requires_grad for parameter in held)
    remove(module, name)
    getattr(module, name).requires_grad_(wants_grad)

"""Which layer does a call of a linear operator belong to: where are its weights, and are they its own?"""

from dataclasses import dataclass, replace

from torch.nn import Module

from convscope.fold.gauge.labels import Labels
from convscope.fold.layers.added_bias import added_bias, product_behind
from convscope.fold.layers.kinds import KINDS, Kind
from convscope.fold.layers.materialised import Plain
from convscope.fold.layers.reweigh import Layer, Reweigh
from convscope.fold.recorded.code import reads
from convscope.fold.recorded.flow import Flow, Stays, addresses
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall

__all__ = ["KINDS", "Layer", "Reweigh", "layer_of"]


def layer_of(
    flow: Flow, call: OperatorCall, inputs: Labels, outputs: Labels, plain: Plain | None = None
) -> Layer:
    """Return the layer that a call of a linear operator belongs to.

    Args:
        flow: the recording and the network.
        call: the call.
        inputs: labels of its input channels, (C_in,).
        outputs: labels of its output channels, (C_out,).
        plain: how its weights become parameters, if they're computed in every run.

    Raises:
        Stays: its weights aren't its own, or not parameters.
    """
    kind = KINDS[call.op]
    unfit = kind.unfit(call)
    if unfit:
        raise Stays(unfit)
    value = call.tensor(kind.weight)
    assert value is not None
    if plain is not None and plain.bias is not None:
        has_bias = kind.bias is not None and call.tensor(kind.bias) is not None
        return Layer(
            call, plain.weight, plain.is_transposed, plain.bias, has_bias, {}, inputs, outputs, plain
        )
    names: tuple[str, ...] = ()
    if plain is not None:
        weight, is_transposed = plain.weight, plain.is_transposed
    else:
        is_transposed = flow.is_transposed(value) and not flow.is_whole(value)
        weight, names = _own(flow, call, value, "weight", whole=is_transposed or flow.is_whole(value))
    bias = _bias(flow, call, kind, weight)
    tied = {slot: parts for slot, parts in ((weight, names), (bias.slot, bias.names)) if slot and parts}
    return Layer(
        call,
        weight,
        is_transposed,
        bias.slot,
        bias.is_there,
        tied,
        inputs,
        outputs,
        plain,
        unread=bias.unread,
        added=bias.added,
    )


@dataclass(frozen=True)
class _Bias:
    """The bias of a layer.

    Attributes:
        slot: where it is held, or may be; None if there is no room for one.
        is_there: whether it is held there already.
        names: of the tensors that it parts from.
        unread: whether there is an empty place for it, which the code that makes the call doesn't read.
        added: the call that adds it, if it is another one.
    """

    slot: Slot | None
    is_there: bool = False
    names: tuple[str, ...] = ()
    unread: bool = False
    added: OperatorCall | None = None


def _bias(flow: Flow, call: OperatorCall, kind: Kind, weight: Slot) -> _Bias:
    added = added_bias(flow, call) if kind.bias is None else None
    value = call.tensor(kind.bias) if kind.bias is not None else None
    if added is not None:
        try:
            slot, names = _own(flow, added.call, added.value, "bias", whole=True)
            _require_one_weight(flow, added.call, added.value, names)
        except Stays:
            return _Bias(None)  # what is added is a constant like any other
        return _Bias(slot, True, names, added=added.call)
    if value is not None:
        slot, names = _own(flow, call, value, "bias", whole=flow.is_whole(value))
        _require_one_weight(flow, call, value, names)
        if slot.tensor_in(flow.model).shape != flow.tape.values[call.output].shape[1:2]:
            raise Stays(f"the bias of {call.address} isn't one number per channel")
        return _Bias(slot, True, names)
    free = replace(weight, attribute=weight.attribute.replace("weight", "bias"))
    parameters = free.module_in(flow.model)._parameters
    if free.attribute == weight.attribute or parameters.get(free.attribute, weight) is not None:
        return _Bias(None)
    return _Bias(free) if _is_read(flow, call, free) else _Bias(None, unread=True)


def _require_one_weight(flow: Flow, call: OperatorCall, bias: int, tied: tuple[str, ...]) -> None:
    """Check that a bias belongs to one weight, unless it parts from the ones that it is tied with.

    Raises:
        Stays: calls with another weight read it too.
    """
    if tied:
        return
    weight = _weight_behind(flow, call)
    others = [each for each in flow.readers_of_storage(bias) if _weight_behind(flow, each) != weight]
    if others:
        names = " and ".join(slot.name for slot in flow.slots_of(bias))
        raise Stays(f"the bias of {call.address}, {names}, is also read by {addresses(others)}")


def _weight_behind(flow: Flow, call: OperatorCall) -> tuple[Slot, ...] | None:
    """Where the weight is held that a call, which adds a bias, multiplies by."""
    product = call if call.op in KINDS else product_behind(flow, call)
    value = None if product is None else product.tensor(KINDS[product.op].weight)
    return None if value is None else flow.slots_of(value)


def _is_read(flow: Flow, call: OperatorCall, free: Slot) -> bool:
    """Whether the code that makes a call would read what is put into an empty place."""
    holder, index = free.module_in(flow.model), call.module
    while index is not None:
        module_call = flow.tape.modules[index]
        caller = flow.module_of(module_call)
        if _may_read(caller, free.attribute, holder):
            return True
        if any(each is holder for each in caller.modules()):
            return False
        index = module_call.parent  # who gave the weight to the caller
    return False


def _own(
    flow: Flow, call: OperatorCall, value: int, what: str, *, whole: bool
) -> tuple[Slot, tuple[str, ...]]:
    """The place of a parameter that only calls of one layer read, and the names that it parts from."""
    name = f"the {what} of {call.address}"
    slots = flow.slots_of(value)
    if not flow.is_parameter(value):
        by = flow.tape.producer(value)
        raise Stays(f"{name} isn't a parameter" + (f" but computed by {by.address}" if by else ""))
    if not whole:
        raise Stays(f"{name} is a part or a view of the parameter {slots[0].name}")
    if flow.is_output(value):
        raise Stays(f"{name} is an output of the network")
    if not slots[0].tensor_in(flow.model).is_floating_point():
        raise Stays(f"{name} isn't floating-point but {slots[0].tensor_in(flow.model).dtype}")
    readers = flow.readers_of_storage(value)
    if flow.is_one_place(slots):
        others = [reader for reader in readers if not _reads_alike(reader, call, value)]
        if others:
            raise Stays(f"{name}, {slots[0].name}, is also read by {addresses(others)}")
        return slots[0], ()
    names = ", ".join(slot.name for slot in slots)
    if not flow.is_one_parameter(slots):
        raise Stays(f"{name} shares its memory with other parameters: {names}")
    paths = {slot.path: slot for slot in slots}
    strangers = [reader for reader in readers if reader.op not in KINDS or reader.address.path not in paths]
    if strangers or call.address.path not in paths:
        raise Stays(f"{name} is one parameter with several names (tied): {names}")
    own = paths[call.address.path]
    return own, tuple(slot.name for slot in slots if slot.path != own.path)


def _reads_alike(reader: OperatorCall, call: OperatorCall, value: int) -> bool:
    """Whether a call reads a parameter in the same place of the same operator."""
    names = [name for name in call.arguments if call.tensor(name) == value]
    same = all(reader.arguments.get(name) == call.arguments.get(name) for name in ("transposed", "groups"))
    theirs = [name for name in reader.arguments if reader.tensor(name) == value]
    return reader.op == call.op and same and theirs == names


def _may_read(caller: Module, name: str, holder: Module) -> bool:
    try:
        return reads(caller, name, holder)
    except Exception:  # objects may answer in any way when they are asked what they are; the proof decides
        return True

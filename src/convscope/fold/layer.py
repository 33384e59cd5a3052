"""Which layer a batch norm's input comes from, and whether that layer's weights may change."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convscope.fold.flow import Flow, Stays, addresses
from convscope.fold.rules import RULES, Rule
from convscope.fold.slots import Slot
from convscope.tape import OperatorCall

# Hand their input on, element for element, in the same shape.
_COPIES = {"clone"}


@dataclass(frozen=True)
class Layer:
    """A linear layer whose weights take a scale and a shift per output channel.

    Attributes:
        call: the recorded operator call.
        rule: the operator's rule.
        weight: where W is held.
        transposed: whether the operator reads the transpose of what is held.
        bias: where b is held, or will be.
        has_bias: whether it is there already.
    """

    call: OperatorCall
    rule: Rule
    weight: Slot
    transposed: bool
    bias: Slot
    has_bias: bool

    @property
    def address(self) -> str:
        """The layer's module call, or its operator call if its weights belong to another module."""
        is_own = self.weight.path in (self.call.address.path, "")
        return str(self.call.address.module if is_own else self.call.address)

    @property
    def operator_once_folded(self) -> str:
        """The operator call's address when the layer has a bias."""
        return str(replace(self.call.address, op=self.rule.biased))

    def scaled_in(self, model: nn.Module, scale: Tensor) -> Tensor:
        """Return the weights, as they are held, with their output channels scaled; float64."""
        weight = self.weight.tensor_in(model).detach().double()
        if not self.transposed:
            return self.rule.scaled(self.call, weight, scale)
        return self.rule.scaled(self.call, weight.mT, scale).mT

    def bias_in(self, model: nn.Module) -> Tensor | None:
        """Return the layer's bias, or None."""
        return self.bias.tensor_in(model).detach() if self.has_bias else None


def layer_before(flow: Flow, call: OperatorCall) -> Layer:
    """Return the layer that alone feeds a batch norm call, and only it.

    Raises:
        Stays: there is none, its output has other readers, or its weights aren't its own.
    """
    made_by = _source(flow, call)
    rule = RULES.get(made_by.op)
    if rule is None:
        raise Stays(f"its input comes from {made_by.address}, and {made_by.op} has no weights to fold into")
    _require_channels(flow, call, made_by, rule)
    unfit = rule.unfit(made_by)
    if unfit:
        raise Stays(unfit)
    _require_only_path(flow, call, made_by)
    weight, transposed = _weight(flow, made_by, rule)
    bias, has_bias = _bias(flow, made_by, rule, weight)
    return Layer(made_by, rule, weight, transposed, bias, has_bias)


def _source(flow: Flow, call: OperatorCall) -> OperatorCall:
    """The call which computes a batch norm's input; copies are looked through."""
    value = call.tensor("input")
    assert value is not None
    made_by = flow.tape.producer(value)
    while made_by is not None and made_by.op in _COPIES:
        value = made_by.inputs[0]
        made_by = flow.tape.producer(value)
    if made_by is None:
        raise Stays("its input is an input of the network or a constant: no layer comes before it")
    if value != made_by.outputs[0]:
        raise Stays(f"its input is a part of what {made_by.address} writes")
    return made_by


def _require_channels(flow: Flow, call: OperatorCall, made_by: OperatorCall, rule: Rule) -> None:
    made, normalised = flow.tape.values[made_by.output], flow.tape.values[call.output]
    if rule.rank is not None and len(made.shape) != rule.rank:
        raise Stays(f"the channels of {made_by.address} aren't those that it normalises")
    if made.dtype != normalised.dtype:
        raise Stays(f"it changes the dtype from {made.dtype} to {normalised.dtype}")


def _require_only_path(flow: Flow, call: OperatorCall, made_by: OperatorCall) -> None:
    value, reader = call.tensor("input"), call
    assert value is not None
    while True:
        flow.require_only_reader(value, reader, f"the output of {made_by.address}")
        if value == made_by.output:
            return
        copy = flow.tape.producer(value)
        assert copy is not None
        value, reader = copy.inputs[0], copy


def _weight(flow: Flow, call: OperatorCall, rule: Rule) -> tuple[Slot, bool]:
    value = call.tensor(rule.weight)
    assert value is not None
    transposed = flow.is_transposed(value) and not flow.is_whole(value)
    return _own(flow, call, value, "weight", whole=transposed or flow.is_whole(value)), transposed


def _bias(flow: Flow, call: OperatorCall, rule: Rule, weight: Slot) -> tuple[Slot, bool]:
    value = None if rule.bias is None else call.tensor(rule.bias)
    if value is not None:
        slot = _own(flow, call, value, "bias", whole=flow.is_whole(value))
        if slot.tensor_in(flow.model).dim() != 1:
            raise Stays(f"the bias of {call.address} isn't one number per channel")
        return slot, True
    free = replace(weight, attribute=weight.attribute.replace("weight", "bias"))
    parameters = free.module_in(flow.model)._parameters
    if free.attribute == weight.attribute or parameters.get(free.attribute, weight) is not None:
        raise Stays(f"{call.address} has no bias, and its module has no empty one to take the shift")
    return free, False


def _own(flow: Flow, call: OperatorCall, value: int, what: str, *, whole: bool) -> Slot:
    """The only place of a parameter that one call alone reads, as a whole."""
    name = f"the {what} of {call.address}"
    slots = flow.slots_of(value)
    if not slots or flow.tape.parameter_of(value) is None:
        by = flow.tape.producer(value)
        raise Stays(f"{name} isn't a parameter" + (f" but computed by {by.address}" if by else ""))
    if not whole:
        raise Stays(f"{name} is a part or a view of the parameter {slots[0].name}")
    if not flow.is_one_place(slots):
        names = ", ".join(slot.name for slot in slots)
        if flow.is_one_parameter(slots):
            raise Stays(f"{name} is one parameter with several names (tied): {names}")
        raise Stays(f"{name} shares its memory with other parameters: {names}")
    others = [reader for reader in flow.readers_of_storage(value) if reader.index != call.index]
    if others:
        raise Stays(f"{name}, {slots[0].name}, is also read by {addresses(others)}")
    if not slots[0].tensor_in(flow.model).is_floating_point():
        raise Stays(f"{name} isn't floating-point but {slots[0].tensor_in(flow.model).dtype}")
    return slots[0]


def require_finite(layer: Layer, weight: Tensor, bias: Tensor) -> None:
    """Check that new weights fit into the layer's dtype.

    Raises:
        Stays: one of them would be infinite or NaN there.
    """
    for tensor, what in ((weight, "weights"), (bias, "biases")):
        if tensor.numel() and not tensor.isfinite().all():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Stays(f"the folded {what} of {layer.address} don't fit into {dtype}")


def new_weights(layer: Layer, scale: Tensor, shift: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the layer's folded weights and bias, computed in float64 and cast once to its own dtype."""
    dtype = layer.weight.tensor_in(model).dtype
    bias_dtype = layer.bias.tensor_in(model).dtype if layer.has_bias else dtype
    with torch.no_grad():
        return layer.scaled_in(model, scale).to(dtype), shift.to(bias_dtype)

"""Layers that take gauges into their weights, on both sides: convolution, transposed convolution, linear.

A layer is y = W x + b. Where x becomes a_in x + b_in and y is to become a_out y + b_out, its weights become
W' = a_out W / a_in and b' = a_out (b − Σ W b_in / a_in) + b_out, per input channel and per output channel.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877, section 3.2, for the fold of what comes after a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convscope.fold.edits import Put
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import Labels
from convscope.fold.layers.border import ZeroBorder
from convscope.fold.layers.materialised import Plain
from convscope.fold.recorded.flow import Flow, Stays, addresses
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall

Blocks = Callable[[OperatorCall, Tensor], Tensor]
"""Returns a view of W, as the operator reads it: (groups, outputs per group, inputs per group, taps)."""


@dataclass(frozen=True)
class Kind:
    """How one operator holds its weights.

    Attributes:
        weight: name of the argument that holds W.
        bias: name of the argument that holds b, or None if the operator has none.
        data: name of the argument that holds x.
        blocks: see :data:`Blocks`.
        unfit: returns why a call can't take gauges, or ``""``.
    """

    weight: str
    bias: str | None
    data: str
    blocks: Blocks
    unfit: Callable[[OperatorCall], str] = lambda _: ""


KINDS: dict[str, Kind] = {}
"""By the operator's name on the tape."""


def takes(op: str, kind: Kind) -> None:
    """Let calls of an operator take gauges into their weights; their channels lie on axis 1."""
    KINDS[op] = kind


def _convolution(call: OperatorCall, weight: Tensor) -> Tensor:
    """W is (C_out, C_in / g, …); transposed, it is (C_in, C_out / g, …), and group i has the i-th rows.

    Sizes that happen to be equal tell nothing; the recorded arguments ``transposed`` and ``groups`` do.

    Source: PyTorch's documentation of ``Conv2d`` and ``ConvTranspose2d``, "Variables".
    """
    groups = call.arguments["groups"]
    blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return blocks.transpose(1, 2) if call.arguments["transposed"] else blocks


def _matrix(call: OperatorCall, weight: Tensor) -> Tensor:
    """The matrix of a linear layer is read as (in, out)."""
    del call
    return weight.mT[None, :, :, None]


def _weighted_sum(call: OperatorCall) -> str:
    plain = {call.arguments["alpha"], call.arguments["beta"]} == {1}
    return "" if plain else f"{call.address} weights its terms by alpha and beta"


takes("convolution", Kind("weight", "bias", "input", _convolution))
takes("addmm", Kind("mat2", "self", "mat1", _matrix, _weighted_sum))
takes("mm", Kind("mat2", None, "self", _matrix))


@dataclass(frozen=True)
class Layer:
    """A layer whose weights take gauges.

    Attributes:
        call: one of its recorded calls.
        weight: where W is held.
        is_transposed: whether the operator reads the transpose of what is held.
        bias: where b is held, or will be; None if there is no room for one.
        has_bias: whether it is there already.
        tied: for the weight or bias that was one with others of other names, these names.
        inputs: labels of the input channels, (C_in,).
        outputs: labels of the output channels, (C_out,).
        plain: how its weights become parameters, if they're computed in every run.
        border: the zeros that it pads with, if a shift may take their place.
    """

    call: OperatorCall
    weight: Slot
    is_transposed: bool
    bias: Slot | None
    has_bias: bool
    tied: dict[Slot, tuple[str, ...]]
    inputs: Labels
    outputs: Labels
    plain: Plain | None = None
    border: ZeroBorder | None = None

    @property
    def kind(self) -> Kind:
        """How the operator holds its weights."""
        return KINDS[self.call.op]

    @property
    def address(self) -> str:
        """The layer's module call, or its operator call if its weights belong to another module."""
        is_own = self.weight.path in (self.call.address.path, "")
        return str(self.call.address.module if is_own else self.call.address)

    def numbers(self, model: nn.Module, slot: Slot) -> Tensor:
        """Return the weight or the bias that a network has there, in float64."""
        computed = None if self.plain is None else self.plain.numbers.get(slot)
        return slot.tensor_in(model).detach().cpu().double() if computed is None else computed

    def edit(self, gauges: Gauges) -> "Reweigh | None":
        """Return the edit that gives it the weights for its gauges; None if those are 1 and 0."""
        (a_in, b_in), (a_out, b_out) = gauges.of(self.inputs), gauges.of(self.outputs)
        edit = Reweigh(self, a_in, b_in, a_out, b_out)
        return edit if edit.weighs or edit.shifts else None


@dataclass(frozen=True)
class Reweigh:
    """New weights for a layer: W' = a_out W / a_in and b' = a_out (b − Σ W b_in / a_in) + b_out.

    Attributes:
        layer: whose.
        a_in, b_in: float64, (C_in,).
        a_out, b_out: float64, (C_out,).
    """

    layer: Layer
    a_in: Tensor
    b_in: Tensor
    a_out: Tensor
    b_out: Tensor

    @property
    def parted(self) -> tuple[str, ...]:
        """Which tensors were one with others before, and no longer are, in phrases."""
        tied = {
            slot: names for slot, names in self.layer.tied.items() if self.weighs or slot != self.layer.weight
        }
        return tuple(f"{slot.name} parts from {', '.join(names)}" for slot, names in tied.items())

    @property
    def weighs(self) -> bool:
        """Whether W changes."""
        return bool((self.a_in != 1).any() or (self.a_out != 1).any())

    @property
    def shifts(self) -> bool:
        """Whether b changes, apart from a scale."""
        return bool((self.b_in != 0).any() or (self.b_out != 0).any())

    def __call__(self, model: nn.Module) -> None:
        """Give a network's layer its weights, computed in float64 and cast once."""
        layer, border = self.layer, self._border
        weight = layer.numbers(model, layer.weight)
        bias = self._bias(model, weight) if layer.has_bias or self.shifts else None
        if layer.plain is not None:
            layer.plain(model)
        if self.weighs or layer.plain is not None:
            Put(layer.weight, weight * self._factor(weight), own=layer.weight in layer.tied)(model)
        if bias is not None and bias.dim() == 1:
            assert layer.bias is not None
            Put(layer.bias, bias, like=layer.weight, own=layer.bias in layer.tied)(model)
        if border is not None:
            border.swap(self.b_in if border.how == "pad" or bias is None else bias)(model)

    def overflows(self, model: nn.Module) -> bool:
        """Whether new weights don't fit into the dtype of the old ones."""
        weight = self.layer.numbers(model, self.layer.weight)
        dtype = self._dtype(model)
        most = torch.finfo(dtype).max
        largest = weight.abs().max() if weight.numel() else torch.zeros(())
        inner = self.b_in.abs().max() / self.a_in.abs().min() if self.b_in.any() else 0.0
        bound = self.a_out.abs().max() * largest * max(weight[0].numel(), 1) * inner + self.b_out.abs().max()
        if bool(largest * self.a_out.abs().max() / self.a_in.abs().min() < most) and bool(bound < most):
            return False
        made = (weight * self._factor(weight)).to(dtype)
        bias = self._bias(model, weight).to(dtype)
        return not bool(made.isfinite().all() and bias.isfinite().all())

    @property
    def _border(self) -> ZeroBorder | None:
        """The border in which the shift of the inputs would show."""
        return self.layer.border if self.b_in.any() else None

    def _dtype(self, model: nn.Module) -> torch.dtype:
        """The dtype of the weights that the network computes with."""
        if self.layer.plain is None:
            return self.layer.weight.tensor_in(model).dtype
        module = self.layer.weight.module_in(model)
        held = (*module.parameters(), *module.buffers())
        return next(tensor.dtype for tensor in held if tensor.is_floating_point())

    def _bias(self, model: nn.Module, weight: Tensor) -> Tensor:
        """The bias for the gauges: (C_out,), or (C_out, H_out, W_out) where zeros around count as shifted."""
        layer, moved = self.layer, self._moved(weight)
        held = (
            layer.numbers(model, layer.bias)
            if layer.bias and layer.has_bias
            else torch.zeros_like(self.b_out)
        )
        scale, bias, shift = (
            each.reshape(-1, *(1,) * (moved.dim() - 1)) for each in (self.a_out, held, self.b_out)
        )
        return scale * (bias - moved) + shift

    def _factor(self, weight: Tensor) -> Tensor:
        """What W is multiplied by, in the shape of W or one that broadcasts to it."""
        made = torch.ones((*weight.shape[:2], *(1,) * (weight.dim() - 2)), dtype=torch.float64)
        blocks = self._blocks(made)
        groups, per_out, per_in, _ = blocks.shape
        blocks *= self.a_out.view(groups, per_out, 1, 1) / self.a_in.view(groups, 1, per_in, 1)
        return made

    def _moved(self, weight: Tensor) -> Tensor:
        """Σ W b_in / a_in over what lies on the input; see :meth:`_bias` for its shape."""
        if not self.b_in.any():
            return torch.zeros_like(self.b_out)
        blocks = self._blocks(weight)
        groups, _, per_in, num_taps = blocks.shape
        taps = (blocks * (self.b_in / self.a_in).view(groups, 1, per_in, 1)).sum(2).reshape(-1, num_taps)
        border = self._border
        return taps.sum(1) if border is None or border.how == "pad" else border.sums(taps)

    def _blocks(self, held: Tensor) -> Tensor:
        return self.layer.kind.blocks(self.layer.call, held.mT if self.layer.is_transposed else held)


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
    if plain is not None:
        bias, has_bias, tied = _bias(flow, call, kind, plain.weight)
        parts = {bias: tied} if bias and tied else {}
        return Layer(call, plain.weight, plain.is_transposed, bias, has_bias, parts, inputs, outputs, plain)
    is_transposed = flow.is_transposed(value) and not flow.is_whole(value)
    weight, tied = _own(flow, call, value, "weight", whole=is_transposed or flow.is_whole(value))
    bias, has_bias, also_tied = _bias(flow, call, kind, weight)
    parts = {slot: names for slot, names in ((weight, tied), (bias, also_tied)) if slot and names}
    return Layer(call, weight, is_transposed, bias, has_bias, parts, inputs, outputs)


def _bias(
    flow: Flow, call: OperatorCall, kind: Kind, weight: Slot
) -> tuple[Slot | None, bool, tuple[str, ...]]:
    value = None if kind.bias is None else call.tensor(kind.bias)
    if value is not None:
        slot, tied = _own(flow, call, value, "bias", whole=flow.is_whole(value))
        if slot.tensor_in(flow.model).shape != flow.tape.values[call.output].shape[1:2]:
            raise Stays(f"the bias of {call.address} isn't one number per channel")
        return slot, True, tied
    free = replace(weight, attribute=weight.attribute.replace("weight", "bias"))
    parameters = free.module_in(flow.model)._parameters
    is_free = free.attribute != weight.attribute and parameters.get(free.attribute, weight) is None
    return (free if is_free else None), False, ()


def _own(
    flow: Flow, call: OperatorCall, value: int, what: str, *, whole: bool
) -> tuple[Slot, tuple[str, ...]]:
    """The place of a parameter that only calls of one layer read, and the names that it parts from."""
    name = f"the {what} of {call.address}"
    slots = flow.slots_of(value)
    if not slots or flow.tape.parameter_of(value) is None:
        by = flow.tape.producer(value)
        raise Stays(f"{name} isn't a parameter" + (f" but computed by {by.address}" if by else ""))
    if not whole:
        raise Stays(f"{name} is a part or a view of the parameter {slots[0].name}")
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

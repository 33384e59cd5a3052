"""Layers that take gauges into their weights, on both sides: convolution, transposed convolution, linear.

A layer is y = W x + b. Where x becomes a_in x + b_in and y is to become a_out y + b_out, its weights become
W' = a_out W / a_in and b' = a_out (b − Σ W b_in / a_in) + b_out, per input channel and per output channel.
With the way back, x = c_in x' + d_in, these are W' = a_out W c_in and b' = a_out (b + Σ W d_in) + b_out,
where c_in may be 0: x was the constant d_in then.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877, section 3.2, for the fold of what comes after a layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.fold.edits import Put
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import Labels
from convscope.fold.layers.border import ZeroBorder
from convscope.fold.layers.kinds import KINDS, Kind
from convscope.fold.layers.materialised import Plain
from convscope.fold.recorded.flow import Stays
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall

_READ = "call the layer itself, or let the code that uses its weight hand on its bias too"


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
        unread: whether its module has an empty place for b, which the code that makes the call doesn't read.
        added: the call that adds b, if it is another one.
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
    unread: bool = False
    added: OperatorCall | None = None

    @property
    def no_room(self) -> Stays:
        """Why no shift goes into it, if there is no room for a bias."""
        if self.unread:
            return Stays(f"{self.call.address} has no bias, and its code wouldn't read one", _READ)
        return Stays(f"{self.call.address} has no bias, and its module no empty one")

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
        (c_in, d_in), (a_out, b_out) = gauges.back(self.inputs), gauges.of(self.outputs)
        edit = Reweigh(self, c_in, d_in, a_out, b_out)
        return edit if edit.weighs or edit.shifts else None


@dataclass(frozen=True)
class Reweigh:
    """New weights for a layer: W' = a_out W c_in and b' = a_out (b + Σ W d_in) + b_out.

    Attributes:
        layer: whose.
        c_in, d_in: float64, (C_in,); what the layer read, x, is c_in x' + d_in of what it reads then.
        a_out, b_out: float64, (C_out,).
    """

    layer: Layer
    c_in: Tensor
    d_in: Tensor
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
        return bool((self.c_in != 1).any() or (self.a_out != 1).any())

    @property
    def shifts(self) -> bool:
        """Whether b changes, apart from a scale."""
        return bool((self.d_in != 0).any() or (self.b_out != 0).any())

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
            zero = torch.where(self.c_in != 0, -self.d_in / self.c_in, 0.0)  # the x' for which x is 0
            border.swap(zero if border.how == "pad" or bias is None else bias)(model)

    def overflows(self, model: nn.Module) -> bool:
        """Whether new weights don't fit into the dtype of the old ones."""
        layer, most = self.layer, torch.finfo(self.dtype(model)).max
        weight, grown = layer.numbers(model, layer.weight), _size(self.a_out)
        bias = _size(layer.numbers(model, layer.bias)) if layer.bias and layer.has_bias else 0.0
        moved = _size(weight) * max(weight[0].numel(), 1) * _size(self.d_in)
        if max(_size(weight) * grown * _size(self.c_in), grown * (bias + moved) + _size(self.b_out)) < most:
            return False
        return not bool(torch.tensor(self.largest(model)).to(self.dtype(model)).isfinite())

    def largest(self, model: nn.Module) -> float:
        """Return the size of the largest new weight or bias, in float64."""
        weight = self.layer.numbers(model, self.layer.weight)
        return max(_size(weight * self._factor(weight)), _size(self._bias(model, weight)))

    @property
    def _border(self) -> ZeroBorder | None:
        """The border in which the shift of the inputs would show."""
        return self.layer.border if self.d_in.any() else None

    def dtype(self, model: nn.Module) -> torch.dtype:
        """Return the dtype of the weights that the network computes with."""
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
        return scale * (bias + moved) + shift

    def _factor(self, weight: Tensor) -> Tensor:
        """What W is multiplied by, in the shape of W or one that broadcasts to it."""
        made = torch.ones((*weight.shape[:2], *(1,) * (weight.dim() - 2)), dtype=torch.float64)
        blocks = self._blocks(made)
        groups, per_out, per_in, _ = blocks.shape
        blocks *= self.a_out.view(groups, per_out, 1, 1) * self.c_in.view(groups, 1, per_in, 1)
        return made

    def _moved(self, weight: Tensor) -> Tensor:
        """Σ W d_in over what lies on the input; see :meth:`_bias` for its shape."""
        if not self.d_in.any():
            return torch.zeros_like(self.b_out)
        blocks = self._blocks(weight)
        groups, _, per_in, num_taps = blocks.shape
        taps = (blocks * self.d_in.view(groups, 1, per_in, 1)).sum(2).reshape(-1, num_taps)
        border = self._border
        return taps.sum(1) if border is None or border.how == "pad" else border.sums(taps)

    def _blocks(self, held: Tensor) -> Tensor:
        return self.layer.kind.blocks(self.layer.call, held.mT if self.layer.is_transposed else held)


def _size(numbers: Tensor) -> float:
    """The largest |number|; NaN if one is."""
    return float(numbers.abs().max()) if numbers.numel() else 0.0

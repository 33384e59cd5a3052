"""What a batch norm call does at test time: y = scale · x + shift per channel, with the recorded operands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.core.address import ROOT
from convscope.fold.flow import Flow, Stays
from convscope.fold.slots import Slot
from convscope.tape import OperatorCall

_EPS_NAMES = ("eps", "epsilon")


@dataclass(frozen=True)
class Affine:
    """The constants of one batch norm call, by where the network holds them.

    Attributes:
        mean, var: the running statistics.
        weight, bias: γ and β, or None for a batch norm without them.
        eps: ε.
    """

    mean: Slot
    var: Slot
    weight: Slot | None
    bias: Slot | None
    eps: float

    def scale_in(self, model: torch.nn.Module) -> Tensor:
        """Return γ / √(v + ε) per channel, in float64."""
        scale = (_wide(self.var, model) + self.eps).rsqrt()
        return scale if self.weight is None else scale * _wide(self.weight, model)

    def shift_in(self, model: torch.nn.Module, bias: Tensor | None) -> Tensor:
        """Return s (b − μ) + β per channel, in float64, for a layer whose own bias is b (None: 0)."""
        centred = -_wide(self.mean, model) if bias is None else bias.double() - _wide(self.mean, model)
        shift = centred * self.scale_in(model)
        return shift if self.bias is None else shift + _wide(self.bias, model)


def affine_of(flow: Flow, call: OperatorCall) -> Affine:
    """Return the constants of a batch norm call.

    Raises:
        Stays: it normalises by the batch, or its statistics aren't buffers with a mean and a variance that
            make sense.
    """
    if call.tensor("running_mean") is None or call.tensor("running_var") is None:
        raise Stays("has no running statistics, so that it normalises by each batch, at test time too")
    mean, var = _buffer(flow, call, "running_mean"), _buffer(flow, call, "running_var")
    if mean.module_in(flow.model).training:
        raise Stays(
            "is in training mode, where it normalises by each batch; call eval() on it before folding"
        )
    if call.arguments.get("training", False):
        raise Stays("normalises by each batch, in evaluation mode too")
    eps = next(call.arguments[name] for name in _EPS_NAMES if name in call.arguments)
    affine = Affine(mean, var, _gain(flow, call, "weight"), _gain(flow, call, "bias"), float(eps))
    _require_sound(affine, flow.model)
    return affine


def _buffer(flow: Flow, call: OperatorCall, name: str) -> Slot:
    value = call.tensor(name)
    assert value is not None
    slots = flow.slots_of(value)
    whole = flow.is_whole(value) and flow.is_one_tensor(slots)
    if not whole or flow.tape.buffer_of(value) is None:
        raise Stays(f"its {name} isn't a buffer of the network as it stands")
    return _nearest(call, slots)


def _gain(flow: Flow, call: OperatorCall, name: str) -> Slot | None:
    value = call.tensor(name)
    if value is None:
        return None
    slots = flow.slots_of(value)
    if not flow.is_whole(value) or not flow.is_one_tensor(slots):
        raise Stays(f"its {name} isn't a parameter of the network as it stands")
    return _nearest(call, slots)


def _nearest(call: OperatorCall, slots: tuple[Slot, ...]) -> Slot:
    """The slot in the module that runs the batch norm, if there is one."""
    path = "" if call.address.path == ROOT else call.address.path
    own = [slot for slot in slots if slot.path == path]
    return own[0] if own else slots[0]


def _require_sound(affine: Affine, model: torch.nn.Module) -> None:
    mean, var = _wide(affine.mean, model), _wide(affine.var, model)
    if not (mean.isfinite().all() and var.isfinite().all()):
        raise Stays(f"its running statistics aren't finite (running_var up to {var.max().item():.3g})")
    worst = var.min().item() if var.numel() else 0.0
    if worst < 0 or worst + affine.eps <= 0:
        raise Stays(f"its running_var goes down to {worst:.3g}, of which there is no square root")
    if not affine.scale_in(model).isfinite().all():
        raise Stays("its weight isn't finite")


def _wide(slot: Slot, model: torch.nn.Module) -> Tensor:
    return slot.tensor_in(model).detach().double()

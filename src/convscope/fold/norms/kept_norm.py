"""Batch norms that are kept take gauges on both sides into their own parameters.

y = γ (x − μ) / √(v + ε) + β. Where x becomes a_in x + b_in and y is to become a_out y + b_out:
μ' = a_in μ + b_in, γ' = a_out γ / a_in, β' = a_out β + b_out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.fold.edits import Edit, Put
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import Labels
from convscope.fold.norms.units import Unit
from convscope.fold.recorded.flow import Flow, path_of
from convscope.fold.recorded.slots import Slot


@dataclass(frozen=True)
class KeptNorm:
    """A batch norm whose parameters take gauges if it is kept.

    Attributes:
        path: its module.
        inputs, outputs: labels of its channels, (C,).
    """

    path: str
    inputs: Labels
    outputs: Labels

    def edits(self, model: nn.Module, gauges: Gauges) -> tuple[Edit, ...]:
        """Return the edits for the gauges of its labels; none if those are 1 and 0."""
        (a_in, b_in), (a_out, b_out) = gauges.of(self.inputs), gauges.of(self.outputs)
        if all(
            bool((number == plain).all()) for number, plain in ((a_in, 1), (b_in, 0), (a_out, 1), (b_out, 0))
        ):
            return ()
        mean = Slot(self.path, "running_mean")
        held = {name: self._numbers(model, name) for name in ("running_mean", "weight", "bias")}
        ones = torch.ones_like(a_in)
        weight = ones if held["weight"] is None else held["weight"]
        bias = 0 * ones if held["bias"] is None else held["bias"]
        assert held["running_mean"] is not None
        return (
            Put(mean, a_in * held["running_mean"] + b_in),
            Put(Slot(self.path, "weight"), a_out * weight / a_in, like=mean),
            Put(Slot(self.path, "bias"), a_out * bias + b_out, like=mean),
        )

    def _numbers(self, model: nn.Module, name: str) -> Tensor | None:
        tensor = getattr(model.get_submodule(self.path), name, None)
        return None if tensor is None else tensor.detach().cpu().double()


def kept_norm_of(flow: Flow, unit: Unit, inputs: Labels | None, outputs: Labels | None) -> KeptNorm | None:
    """Return a batch norm as a layer that takes gauges; None if its parameters aren't its alone."""
    call = unit.last
    if unit.module is None or call.op != "batch_norm" or inputs is None or outputs is None:
        return None
    path = path_of(unit.module)
    if len(flow.calls_of_module(path)) > 1 or path != unit.buffers:
        return None
    for name, slot_name in (("running_mean", "running_mean"), ("weight", "weight"), ("bias", "bias")):
        value = call.tensor(name)
        if value is None:
            parameters = flow.module_of(unit.module)._parameters
            if name not in parameters or parameters[name] is not None:
                return None
            continue
        slots = flow.slots_of(value)
        if not slots or not flow.is_whole(value) or not flow.is_one_place(slots):
            return None
        if all((slot.path, slot.attribute) != (path, slot_name) for slot in slots):
            return None
        if len(flow.readers_of_storage(value)) > 1 or flow.is_output(value):
            return None
    return KeptNorm(path, inputs, outputs)

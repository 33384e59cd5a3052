"""Numbers that a recorded run takes from parameters and buffers, in float64.

Which axis of a constant meets the channels follows from its shape against the value's: (C, 1, 1) scales the
channels of (N, C, H, W), (W,) doesn't, not even where W = C.
"""

from functools import cached_property

import torch
from torch import Tensor

from convscope.fold.recorded.flow import Flow
from convscope.tape import OperatorCall


class Run(Flow):
    """A tape of inference, the network that it was recorded from, and the numbers which that holds."""

    def is_constant(self, value: int) -> bool:
        """Whether a value is a parameter or buffer, or a view of one, that the run never writes to."""
        held = self.tape.parameter_of(value) or self.tape.buffer_of(value)
        return held is not None and held.storage not in self._written

    def constant(self, value: int) -> Tensor:
        """Return what a constant holds, as the run reads it, in float64 on the CPU."""
        read, info = self.tape.values[value], self.tape.parameter_of(value) or self.tape.buffer_of(value)
        assert info is not None
        path, _, attribute = info.name.rpartition(".")
        held: Tensor = getattr(self.model.get_submodule(path), attribute).detach()
        start = read.offset - info.offset + int(held.storage_offset())
        return held.as_strided(read.shape, read.stride, start).to("cpu", torch.float64)

    @cached_property
    def _written(self) -> set[int]:
        return {value.storage for value in self.tape.values if value.version > 0}


def is_per_channel(run: Run, value: int, like: int) -> bool:
    """Whether a constant is one number, or one per channel (axis 1), of a value that it is combined with."""
    shape, whole = run.tape.values[value].shape, run.tape.values[like].shape
    if len(shape) > len(whole):
        return False
    aligned = (1,) * (len(whole) - len(shape)) + shape
    return all(size == 1 for axis, size in enumerate(aligned) if axis != 1) and aligned[1] in (1, whole[1])


def batch_norm_constants(run: Run, call: OperatorCall) -> tuple[Tensor, Tensor] | None:
    """Return the scale γ / √(v + ε) and the shift β − μ scale of a batch norm call at test time, in float64.

    None if it normalises by the batch, or if its constants aren't the network's or make no sense.
    """
    mean, var = call.tensor("running_mean"), call.tensor("running_var")
    weight, bias = call.tensor("weight"), call.tensor("bias")
    if mean is None or var is None or call.arguments.get("training", False):
        return None
    if not all(value is None or run.is_constant(value) for value in (mean, var, weight, bias)):
        return None
    if any(slot.module_in(run.model).training for slot in run.slots_of(mean)):
        return None
    epsilon = next(call.arguments[name] for name in ("eps", "epsilon") if name in call.arguments)
    scale = (run.constant(var) + epsilon).rsqrt()
    scale = scale if weight is None else scale * run.constant(weight)
    shift = -run.constant(mean) * scale
    shift = shift if bias is None else shift + run.constant(bias)
    return (scale, shift) if bool((scale.isfinite() & shift.isfinite()).all()) else None

"""Numbers that a recorded run takes from parameters and buffers, in float64.

Which axis of a constant meets the channels follows from its shape against the value's: (C, 1, 1) scales the
channels of (N, C, H, W), (W,) doesn't, not even where W = C.
"""

from functools import cached_property

import torch
from torch import Tensor

from convscope.fold.norms.units import affine_of
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays
from convscope.tape import OperatorCall


class Run(Flow):
    """A tape of inference, the network that it was recorded from, and the numbers which that holds."""

    def is_constant(self, value: int) -> bool:
        """Whether a value is a parameter or buffer, or a view of one, that the run never writes to."""
        held = self.tape.parameter_of(value) or self.tape.buffer_of(value)
        return held is not None and held.storage not in self._written

    def constant(self, value: int) -> Tensor:
        """Return what a constant holds, as the run reads it, in float64 on the CPU."""
        return self.constants.numbers(value)

    @cached_property
    def constants(self) -> Constants:
        """The values that don't depend on the network's inputs."""
        return Constants(self)

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
    read = (call.tensor(name) for name in ("running_mean", "running_var", "weight", "bias"))
    if not all(value is None or run.is_constant(value) for value in read):
        return None
    try:
        scale, shift, _ = affine_of(run, run.constants, call)
    except Stays:
        return None
    return torch.from_numpy(scale), torch.from_numpy(shift)

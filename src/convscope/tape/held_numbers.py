"""Numbers that a simulated network reads, but that no data decide: its own, and constants of its code.

``if self.initialized`` on a buffer, ``self.scale.item()`` on a parameter and ``torch.tensor(3).item()`` have
one answer in every run, so a simulation gives it. Once the step has written to the tensor, it doesn't.

Not covered: elements of larger tensors that are neither parameters nor buffers, and what is computed from
any of these.
"""

from collections.abc import Iterable

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from convscope.tape.calls import TensorInfo
from convscope.tape.decisions import Number
from convscope.tape.registry import Registry
from convscope.tape.substrate import Simulated


class HeldNumbers:
    """Looks up what a tensor of one element holds, if the network or its code does.

    Args:
        simulated: the network.
        registry: the values of the recording.
        tensors: the network's parameters and buffers, as registered.
    """

    def __init__(self, simulated: Simulated, registry: Registry, tensors: Iterable[TensorInfo]) -> None:
        self._simulated, self._registry, self._tensors = simulated, registry, tensors

    def number(self, tensor: torch.Tensor) -> Number | None:
        """Return what a tensor of one element holds in every run, or None if the data decide."""
        value = self._registry.values[self._registry.read(tensor)]
        if value.version:
            return None
        if isinstance(tensor, FakeTensor) and tensor.constant is not None:
            return _read(tensor.constant, 0)
        if not isinstance(tensor, FakeTensor) and self._registry.is_outside(tensor):
            return _read(tensor, 0)
        info = next((info for info in self._tensors if info.storage == value.storage), None)
        return None if info is None else self._of(info, value.offset)

    def _of(self, info: TensorInfo, offset: int) -> Number | None:
        """The number at an offset in a parameter's or buffer's storage."""
        simulated = self._simulated
        twin = {**simulated.buffers, **simulated.parameters}[info.name]
        original = simulated.original_of(twin)
        if original is None or original.layout is not torch.strided or original.stride() != twin.stride():
            return None
        return _read(original, offset - info.offset)


def _read(tensor: torch.Tensor, offset: int) -> Number | None:
    """The element of a real tensor that lies so far behind its first one; None if it holds no numbers."""
    if tensor.is_meta:
        return None
    with _disable_current_modes(), torch.no_grad():
        number: Number = tensor.detach().as_strided((), (), tensor.storage_offset() + offset).item()
    return number

"""Copies of a network's tensors: one for each, in one storage for each storage, so that ties stay."""

import torch
from torch import nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Copier:
    """Makes the copy of a tensor; one copy per tensor, and one storage per storage."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None, *, channels_last: bool) -> None:
        self.device, self.dtype = device, dtype
        self._orders = _CHANNELS_LAST if channels_last else {}
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The copy of a tensor, made when it is first asked for."""
        if id(tensor) not in self._copies:
            copy = self._copy(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            elif tensor.is_floating_point():
                copy.requires_grad_(tensor.requires_grad and tensor.is_leaf)
            self._copies[id(tensor)] = self._copies[id(copy)] = (tensor, copy)
        return self._copies[id(tensor)][1]

    def noise(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Random numbers of a shape."""
        numbers = torch.randn(shape, dtype=self.dtype or dtype, device=self.device)
        return numbers.contiguous(memory_format=self._orders.get(len(shape), torch.contiguous_format))

    def known(self, tensor: torch.Tensor) -> torch.Tensor:
        """The copy of a tensor that has one; any other as it is."""
        return self._copies.get(id(tensor), (tensor, tensor))[1]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self.dtype if self.dtype and tensor.is_floating_point() else tensor.dtype
        recast = dtype != tensor.dtype or tensor.device != self.device or tensor.layout is not torch.strided
        if recast or tensor.dim() in self._orders:
            order = self._orders.get(tensor.dim(), torch.preserve_format)
            return tensor.to(self.device, dtype, copy=True, memory_format=order)
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage.clone()  # type: ignore[no-untyped-call]
        kept = self._storages[storage._cdata]
        return torch.empty(0, dtype=dtype, device=self.device).set_(
            kept, tensor.storage_offset(), tensor.shape, tensor.stride()
        )


def hold_copies(module: nn.Module, copy: Copier) -> None:
    """Put copies in the place of a module's own parameters and buffers."""
    for kind in ("_parameters", "_buffers"):
        module.__dict__[kind] = {
            name: None if tensor is None else copy(tensor) for name, tensor in module.__dict__[kind].items()
        }


def refer_to_copies(module: nn.Module, copy: Copier) -> None:
    """Put copies into a module's lists of tensors; recurrent layers list their parameters once more."""
    for name, value in module.__dict__.items():
        if type(value) in (list, tuple) and any(isinstance(item, torch.Tensor) for item in value):
            module.__dict__[name] = type(value)(
                copy.known(item) if isinstance(item, torch.Tensor) else item for item in value
            )

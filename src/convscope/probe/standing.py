"""Other tensors in the place of a model's parameters, for a run: the parameters themselves aren't touched."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class StandIns:
    """What stands in for some tensors, wherever they or views of them are operators' arguments.

    Args:
        others: by the tensor that each replaces; of the same shape and dtype, on the same device.

    Example:
        >>> weight = torch.ones(2, 3)
        >>> StandIns({weight: torch.zeros(2, 3)}).of((weight.t()[1:], 4))[0].tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, others: Mapping[Tensor, Tensor]) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}
        with torch.no_grad():
            for tensor, other in others.items():
                whole = tensor.untyped_storage()
                own = self._storages.setdefault(whole.data_ptr(), whole.clone())  # type: ignore[no-untyped-call]
                _over(own, tensor.detach()).copy_(other)

    def of(self, arguments: Any) -> Any:
        """Return an operator's arguments with the tensors replaced."""
        return tree_map_only(Tensor, self._replaced, arguments)

    def _replaced(self, tensor: Tensor) -> Tensor:
        own = self._storages.get(tensor.untyped_storage().data_ptr())
        return tensor if own is None else _over(own, tensor)


def _over(storage: torch.UntypedStorage, like: Tensor) -> Tensor:
    """The region of a storage that a tensor has in its own."""
    view = torch.empty(0, dtype=like.dtype, device=like.device)
    return view.set_(storage, like.storage_offset(), like.shape, like.stride())

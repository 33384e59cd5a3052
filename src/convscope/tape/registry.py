"""The values and storages of a run, numbered as they turn up; when each storage was born and freed."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from convscope.tape.calls import Role, Storage, TensorInfo, Value


@dataclass
class _Block:
    """A storage while its life is being written down; fields as in :class:`Storage`."""

    nbytes: int
    birth: int
    death: int | None
    role: Role
    name: str


class Registry:
    """Numbers every value and storage that it is shown, and notes when storages are freed.

    Attributes:
        num_calls: how many operator calls have run; the recorder keeps it up to date.
        values: so far, by index.
    """

    def __init__(self) -> None:
        self.num_calls = 0
        self.values: list[Value] = []
        self._blocks: list[_Block] = []
        self._value_index: dict[tuple[Any, ...], int] = {}
        self._block_index: dict[int, int] = {}
        self._writes: dict[int, tuple[int, int | None]] = {}

    @property
    def storages(self) -> tuple[Storage, ...]:
        """The storages, by index."""
        return tuple(
            Storage(index, block.nbytes, block.birth, block.death, block.role, block.name)
            for index, block in enumerate(self._blocks)
        )

    def standing(self, tensor: torch.Tensor, role: Role, name: str) -> int:
        """Return the value of a tensor that was there before the step."""
        self._storage(tensor, role, name, birth=-1)
        return self.value(tensor)

    def register(self, tensors: dict[str, torch.Tensor], role: Role) -> tuple[TensorInfo, ...]:
        """Return what is known of the network's parameters or buffers, which are there before the step."""
        return tuple(
            TensorInfo(
                name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad,
                self.values[self.standing(tensor, role, name)].storage, int(tensor.storage_offset()),
            )
            for name, tensor in tensors.items()
        )  # fmt: skip

    def read(self, tensor: torch.Tensor) -> int:
        """Return the value of a tensor that an operator reads; unknown ones were there before the step."""
        if tensor.untyped_storage()._cdata not in self._block_index:
            self._storage(tensor, "constant", birth=-1)
        return self.value(tensor)

    def value(self, tensor: torch.Tensor, call: int | None = None) -> int:
        """Return the value that a tensor holds now; a new one is the output of ``call``."""
        storage = self._storage(tensor)
        version, writer = self._writes.get(storage, (0, None))
        shape, stride, offset = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
        key = (storage, version, offset, shape, stride, tensor.dtype)
        index = self._value_index.get(key)
        if index is None:
            index = self._value_index[key] = len(self.values)
            producer = writer if call is None else call
            self.values.append(Value(index, storage, shape, stride, offset, tensor.dtype, version, producer))
        return index

    def values_in(self, tree: Any) -> tuple[int, ...]:
        """Return the values of the tensors in nested containers."""
        return tuple(self.value(leaf) for leaf in tensors_in(tree))

    def written(self, tensor: torch.Tensor, call: int) -> None:
        """Note that a call wrote to a tensor's storage: what it holds from now on are new values."""
        storage = self._storage(tensor)
        self._writes[storage] = (self._writes.get(storage, (0, None))[0] + 1, call)

    def is_outside(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor was there before the step and is no parameter, buffer or input."""
        index = self._block_index.get(tensor.untyped_storage()._cdata)
        return index is not None and self._blocks[index].role == "constant"

    def made(self, tensor: torch.Tensor) -> None:
        """Note a tensor that an operator made which isn't recorded."""
        self._storage(tensor)

    def mark(
        self, tensors: Iterable[tuple[str, torch.Tensor | None]], role: Role, *, standing: bool = False
    ) -> None:
        """Give the storages of some tensors a role; ``standing`` ones were there before the step."""
        for name, tensor in tensors:
            if tensor is not None:
                block = self._blocks[self._storage(tensor, role, name)]
                block.role, block.name = role, name
                block.birth = -1 if standing else block.birth

    def mark_activations(self) -> None:
        """Mark the storages which the forward pass leaves alive as activations."""
        for block in self._blocks:
            if block.role == "temporary" and block.death is None and block.birth >= 0:
                block.role = "activation"

    def _storage(
        self, tensor: torch.Tensor, role: Role = "temporary", name: str = "", birth: int | None = None
    ) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._block_index.get(key)
        if known is not None:
            return known
        index = self._block_index[key] = len(self._blocks)
        birth = self.num_calls if birth is None else birth
        self._blocks.append(_Block(storage.nbytes(), birth, None, role, name))
        weakref.finalize(storage, self._note_death, key, index).atexit = False
        return index

    def _note_death(self, key: int, index: int) -> None:
        # The address of a freed storage may belong to another one by now.
        if self._block_index.get(key) == index:
            del self._block_index[key]
        self._blocks[index].death = self.num_calls


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Yield the dense tensors in nested containers, in order, but for ``torch.func``'s wrappers."""
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided and not _is_wrapped(leaf):
            yield leaf


def _is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for others, inside ``torch.func``'s transforms: it has no storage."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))

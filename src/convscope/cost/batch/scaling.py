"""How does a recorded step grow with its batch? Recordings at all batch sizes, from two of them.

The sizes of a step's tensors are a + b·N in the batch N, with whole numbers a and b that two recordings give
exactly. That holds as long as the network runs the same operators at every batch, which is checked where it
matters: :func:`difference` compares what was derived with a real recording.

Limits: networks whose sizes aren't a + b·N (a matrix of all pairs of a batch), or that take other paths for
larger batches, have no family; :class:`NotAffineError` says where they differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from convscope.core.errors import ConvscopeError
from convscope.tape import Storage, Tape, Value
from convscope.tape.substrate import Inputs


class NotAffineError(Exception):
    """Two recordings that aren't the same step at two batch sizes; the text says where they differ."""


@dataclass(frozen=True)
class Growth:
    """The sizes that change with the batch: by index, at batch 0 and per item."""

    nbytes: dict[int, tuple[int, int]]
    regions: dict[int, tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...], tuple[int, int]]]


@dataclass(frozen=True)
class Family:
    """One step at every batch size.

    Attributes:
        batches: the two that were recorded.
        tape: the recording at the first.
        growth: what changes with the batch.
    """

    batches: tuple[int, int]
    tape: Tape
    growth: Growth

    def at(self, batch: int) -> Tape:
        """Return the tape of the step at a batch; arguments such as the sizes of views aren't scaled."""
        storages, values = list(self.tape.storages), list(self.tape.values)
        for index, (fixed, each) in self.growth.nbytes.items():
            storages[index] = replace(storages[index], nbytes=fixed + each * batch)
        for index, (shape, stride, offset) in self.growth.regions.items():
            start = offset[0] + offset[1] * batch
            values[index] = replace(
                values[index], shape=_line(shape, batch), stride=_line(stride, batch), offset=start
            )
        return replace(self.tape, storages=tuple(storages), values=tuple(values))


def family(first: Tape, second: Tape, batches: tuple[int, int]) -> Family:
    """Return the step at every batch from its tapes at two.

    Raises:
        NotAffineError: they differ in more than sizes, or a size isn't a + b·N.
    """
    where = difference(first, second, sizes=False)
    if where:
        raise NotAffineError(where)
    nbytes, regions = {}, {}
    for old, new in zip(first.storages, second.storages, strict=True):
        if old.nbytes != new.nbytes:
            nbytes[old.index] = _law(old.nbytes, new.nbytes, batches)
    for before, after in zip(first.values, second.values, strict=True):
        sizes = (before.shape, before.stride, before.offset), (after.shape, after.stride, after.offset)
        if sizes[0] != sizes[1]:
            regions[before.index] = (
                _laws(before.shape, after.shape, batches),
                _laws(before.stride, after.stride, batches),
                _law(before.offset, after.offset, batches),
            )
    return Family(batches, first, Growth(nbytes, regions))


def difference(first: Tape, second: Tape, *, sizes: bool = True) -> str:
    """Return where two tapes aren't the same step, in words; an empty text if nowhere.

    Compared are operators with their phases, operands and module calls, the life and role of every storage,
    and the regions of values; with ``sizes`` the bytes and shapes too.
    """
    for one, other in zip(first.calls, second.calls, strict=False):
        if _kind(one) != _kind(other):
            return f"the operators differ from {one.address} on"
    if len(first.calls) != len(second.calls):
        return f"{len(first.calls)} operators run in one and {len(second.calls)} in the other"
    for storage, twin in zip(first.storages, second.storages, strict=False):
        if replace(storage, nbytes=0) != replace(twin, nbytes=0):
            return f"a tensor's life differs, made at {_birthplace(first, storage)}"
        if sizes and storage.nbytes != twin.nbytes:
            return f"a tensor made at {_birthplace(first, storage)} has another size"
    if len(first.storages) != len(second.storages) or len(first.values) != len(second.values):
        return "the number of tensors differs"
    for value, match in zip(first.values, second.values, strict=True):
        if _identity(value) != _identity(match) or (sizes and value != match):
            return f"a tensor read in one is another in the other (number {value.index})"
    return ""


def batch_of(inputs: Inputs) -> int:
    """Return the batch of some inputs: the first size of the first tensor or shape among them.

    Raises:
        ConvscopeError: there is no tensor with a size.

    Example:
        >>> batch_of({"image": (8, 3, 32, 32), "scale": 2.0})
        8
    """
    found = _first_size(inputs)
    if found is None:
        raise ConvscopeError(
            "inputs without a batch axis", "a tensor or a shape whose first size is the batch", "add it"
        )
    return found


def with_batch(inputs: Inputs, batch: int) -> Inputs:
    """Return inputs of the same kind for another batch; no memory is taken.

    Every tensor and shape whose first size is the inputs' batch gets the new one; all else stays.

    Example:
        >>> with_batch(((8, 3, 32, 32), (8, 10), (1, 10)), 64)
        ((64, 3, 32, 32), (64, 10), (1, 10))
    """
    old = batch_of(inputs)

    def scaled(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return _stretched(item, batch) if item.dim() and item.shape[0] == old else item
        if _is_shape(item):
            return (batch, *item[1:]) if item[0] == old else tuple(item)
        if isinstance(item, Mapping):
            return {name: scaled(part) for name, part in item.items()}
        if isinstance(item, list | tuple):
            parts = [scaled(part) for part in item]
            return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
        return item

    return scaled(inputs)


def _first_size(item: Any) -> int | None:
    if isinstance(item, torch.Tensor):
        return item.shape[0] if item.dim() else None
    if _is_shape(item):
        return int(item[0])
    parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return next((size for part in parts if (size := _first_size(part)) is not None), None)


def _is_shape(item: Any) -> bool:
    return isinstance(item, tuple) and bool(item) and all(type(size) is int for size in item)


def _stretched(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    shape = (batch, *tensor.shape[1:])
    last = tensor.dim() == 4 and not tensor.is_contiguous()
    last = last and tensor.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        shape, dtype=tensor.dtype, device="meta", memory_format=layout, requires_grad=tensor.requires_grad
    )


def _law(first: int, second: int, batches: tuple[int, int]) -> tuple[int, int]:
    """The a and b of a size a + b·N that is known at two batches."""
    each, rest = divmod(second - first, batches[1] - batches[0])
    if rest:
        raise NotAffineError(f"a size is {first} at batch {batches[0]} and {second} at batch {batches[1]}")
    return first - each * batches[0], each


def _laws(
    first: tuple[int, ...], second: tuple[int, ...], batches: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    return tuple(_law(one, other, batches) for one, other in zip(first, second, strict=True))


def _line(laws: tuple[tuple[int, int], ...], batch: int) -> tuple[int, ...]:
    return tuple(fixed + each * batch for fixed, each in laws)


def _kind(call: Any) -> tuple[Any, ...]:
    return (
        call.overload, call.phase, call.address, call.module, call.inputs, call.outputs, call.forward,
        call.saved,
    )  # fmt: skip


def _identity(value: Value) -> tuple[Any, ...]:
    return value.storage, value.version, value.producer, value.dtype, len(value.shape)


def _birthplace(tape: Tape, storage: Storage) -> str:
    made = 0 <= storage.birth < len(tape.calls)
    return str(tape.calls[storage.birth].address) if made else storage.name or "the step's begin"

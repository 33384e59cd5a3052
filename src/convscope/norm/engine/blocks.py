"""How to walk a tensor in the order of its memory, in blocks that stay in the cache.

A formula of five small steps over a large tensor reads and writes it five times, and asks the system for
five new tensors of its size, which costs more than the arithmetic. Block by block, the steps after the first
find their operands in the cache, and the scratch space of one block serves all. Which dimensions lie how in
memory (contiguous, channels_last, transposed, …) is settled here once: the formulas see neither.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_VALUES = 1 << 19
"""Values of a block on a CPU, 2 MiB of float32: larger ones leave the cache, smaller ones cost more calls."""

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Arrangement:
    """A tensor's dimensions in the order of its memory, those that may be walked as one taken together.

    Attributes:
        groups: dimensions of the tensor, in groups; the last group lies closest in memory.
        sizes: how many values each group has.
        limit: the most values of a block.
    """

    groups: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    limit: int

    @property
    def whole(self) -> bool:
        """Whether one block holds everything, so that nothing is rearranged."""
        return math.prod(self.sizes) <= self.limit

    def view(self, tensor: Tensor) -> Tensor:
        """Return a tensor arranged this way, one dimension a group; it may have size 1 in whole groups."""
        if self.whole:
            return tensor
        order = [dim for group in self.groups for dim in group]
        sizes = [math.prod([tensor.shape[dim] for dim in group]) for group in self.groups]
        return tensor.permute(order).reshape(sizes)

    def result(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an empty tensor of some shape, whose arranged form is a view: for parts to be written to."""
        order = [dim for group in self.groups for dim in group]
        empty = torch.empty([shape[dim] for dim in order], dtype=dtype, device=device)
        return empty.permute([order.index(dim) for dim in range(len(order))])

    def blocks(self) -> Iterator[Index]:
        """Yield the blocks: as many neighbours along the outermost group as fit, or parts of single ones."""
        return _blocks(self.sizes, self.limit)

    def by_set(self, like: Tensor) -> Iterator[tuple[Index, list[Index], tuple[int, ...]]]:
        """Yield the sets that some blocks share, those blocks, and the arranged dimensions within a set.

        Each set is yielded once.

        Args:
            like: a tensor with one number a set, that is, of size 1 within sets.
        """
        inner = tuple(dim for dim, size in enumerate(self.view(like).shape) if size == 1)
        shares: dict[tuple[int, ...], tuple[Index, list[Index]]] = {}
        for index in self.blocks():
            sets = tuple(slice(None) if dim in inner else piece for dim, piece in enumerate(index))
            key = tuple(piece.start or 0 for piece in sets)  # slices have no hash before Python 3.12
            shares.setdefault(key, (sets, []))[1].append(index)
        for sets, blocks in shares.values():
            yield sets, blocks, inner

    def walk(self, *operands: Tensor | None, among: Iterable[Index] | None = None) -> Iterator[list[Any]]:
        """Yield the parts of some operands that belong together, block by block; None stays None.

        Args:
            operands: tensors that broadcast to the arranged one; parts are views, to read and to write.
            among: the blocks; None for all.
        """
        if self.whole:
            yield list(operands)
            return
        views = [None if operand is None else self.view(operand) for operand in operands]
        for index in self.blocks() if among is None else among:
            yield [None if view is None else part(view, index) for view in views]

    def scratch(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return space for the values of one block of the arranged tensor."""
        if self.whole:
            return torch.empty_like(x, dtype=dtype)
        return torch.empty(self.limit, dtype=dtype, device=x.device)


def arrange(x: Tensor, *operands: Tensor | None) -> Arrangement:
    """Return how to walk a dense tensor together with operands that broadcast to it.

    Neighbouring dimensions are taken together where the tensor's memory runs through both, and each operand
    has either both of them or neither.

    Args:
        x: dense, in any order of dimensions (:func:`dense`).
        operands: tensors of the rank of ``x`` whose sizes are those of ``x`` or 1; None is left out.

    Example:
        >>> maps, channels = torch.zeros(2, 3, 400, 500), torch.zeros(1, 3, 1, 1)
        >>> arrange(maps, channels).groups
        ((0,), (1,), (2, 3))
        >>> arrange(maps.to(memory_format=torch.channels_last), channels).groups
        ((0, 2, 3), (1,))
    """
    shape, strides = x.shape, x.stride()
    limit = BLOCK_VALUES if x.device.type == "cpu" else max(1, x.numel())
    if x.numel() <= limit:
        return Arrangement(tuple((dim,) for dim in range(x.dim())), tuple(shape), limit)
    wide = [dim for dim in range(x.dim()) if shape[dim] != 1]
    wide.sort(key=lambda dim: -strides[dim])
    shapes = [operand.shape for operand in operands if operand is not None]
    groups: list[list[int]] = []
    for dim in wide:
        last = groups[-1][-1] if groups else None
        if last is not None and _together(last, dim, shape, strides, shapes):
            groups[-1].append(dim)
        else:
            groups.append([dim])
    ones = [dim for dim in range(x.dim()) if shape[dim] == 1]
    groups[0] = [*ones, *groups[0]]
    sizes = tuple(math.prod([shape[dim] for dim in group]) for group in groups)
    return Arrangement(tuple(map(tuple, groups)), sizes, limit)


def dense(x: Tensor) -> Tensor:
    """Return a tensor without gaps or overlaps in memory: itself, or a copy in PyTorch's choice of layout.

    Example:
        >>> dense(torch.zeros(4, 6)[:, ::2]).stride(), dense(torch.zeros(1).expand(3)).stride()
        ((3, 1), (1,))
    """
    expected = 1
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: (pair[1], pair[0])):
        if size != 1 and stride != expected:
            return torch.empty_like(x).copy_(x)
        expected *= size
    return x


def part(operand: Tensor, index: Index) -> Tensor:
    """Return the part of an arranged operand that belongs to a block."""
    wanted = tuple(
        slice(None) if size == 1 else piece for piece, size in zip(index, operand.shape, strict=True)
    )
    return operand if all(piece == slice(None) for piece in wanted) else operand[wanted]


def _together(
    outer: int, inner: int, shape: Sequence[int], strides: Sequence[int], operands: list[torch.Size]
) -> bool:
    adjacent = strides[outer] == strides[inner] * shape[inner]
    return adjacent and all((sizes[outer] == 1) == (sizes[inner] == 1) for sizes in operands)


def _blocks(sizes: tuple[int, ...], limit: int) -> Iterator[Index]:
    if math.prod(sizes) <= limit:
        yield (slice(None),) * len(sizes)
        return
    inner = math.prod(sizes[1:])
    step = max(1, limit // inner)
    for start in range(0, sizes[0], step):
        outer = slice(start, min(start + step, sizes[0]))
        for rest in _blocks(sizes[1:], limit) if inner > limit else [(slice(None),) * (len(sizes) - 1)]:
            yield (outer, *rest)


def within(scratch: Tensor, like: Tensor) -> Tensor:
    """Return the beginning of a block's scratch space, in the shape of a block."""
    return scratch if scratch.shape == like.shape else scratch[: like.numel()].view(like.shape)

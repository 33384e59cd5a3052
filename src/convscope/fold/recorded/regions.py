"""Which part of a block of memory does a tensor lie in, and does it meet another one there?

Parameters may be views of one flat tensor, side by side (``torch.nn.utils.vector_to_parameters``): one block
of memory says nothing about whether they have numbers in common.

Limits: tensors whose elements lie between one another's, without a common one, count as meeting.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Region:
    """The part of a block of memory that a tensor lies in.

    Attributes:
        offset: of its first element, in elements.
        shape, stride: of the tensor, in elements.
        dtype: of its elements.

    Example:
        >>> whole, turned = (Region(4, shape, stride, torch.float32)
        ...     for shape, stride in (((2, 3), (3, 1)), ((3, 2), (1, 3))))
        >>> whole.is_same(turned), whole.is_same(turned.transposed()), whole.overlaps(turned)
        (False, True, True)
    """

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def is_same(self, other: "Region") -> bool:
        """Whether it is the same tensor, element by element."""
        return (self.offset, self.shape, self.dtype, self._steps) == (
            other.offset, other.shape, other.dtype, other._steps
        )  # fmt: skip

    def overlaps(self, other: "Region") -> bool:
        """Whether they may have an element in common."""
        if self.dtype != other.dtype:
            return True  # a view of the same bytes as other numbers
        return self.is_same(other) or (self.offset < other._end and other.offset < self._end)

    def transposed(self) -> "Region":
        """Return it with its axes the other way round."""
        return Region(self.offset, self.shape[::-1], self.stride[::-1], self.dtype)

    @property
    def _steps(self) -> tuple[int, ...]:
        """The strides that matter: of axes of length 1 they may be any."""
        return tuple(step for size, step in zip(self.shape, self.stride, strict=True) if size > 1)

    @property
    def _end(self) -> int:
        """One behind its last element."""
        if 0 in self.shape:
            return self.offset
        steps = zip(self.shape, self.stride, strict=True)
        return self.offset + 1 + sum((size - 1) * step for size, step in steps)

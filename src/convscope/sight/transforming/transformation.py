"""Moving, scaling and turning images, and where that puts a point.

All resampling is bilinear; an image that is made smaller is smoothed by the same kernel, widened by the
factor, so that it doesn't alias. Whole-pixel translations and turns by multiples of 90° on square images copy
pixels and compute nothing; the identity returns the image as it is.

Coordinates are those of pixel centres, (y, x) from (0, 0), y downwards; scaling and turning keep the image's
centre, ((height − 1) / 2, (width − 1) / 2).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Kind = Literal["translation", "scale", "rotation"]
Border = Literal["reflect", "wrap", "zero"]
"""What lies beyond the border: the image mirrored (without its outermost pixels twice), the image again, or
zeros."""


@dataclass(frozen=True)
class Transformation:
    """One way to change an image's geometry.

    Attributes:
        kind: what is done.
        amount: pixels downwards (translation), a factor (scale: above 1 shows things larger), or degrees
            counter-clockwise as shown (rotation).
        direction: (y, x) of a translation, for ``amount`` 1.
    """

    kind: Kind
    amount: float
    direction: tuple[float, float] = (1.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        still = 1.0 if self.kind == "scale" else 0.0
        return self.amount % 360 == 0 if self.kind == "rotation" else self.amount == still

    @property
    def shrinks_by(self) -> float:
        """Factor by which things get smaller; 1 if they don't."""
        return max(1.0, 1 / self.amount) if self.kind == "scale" else 1.0

    def moved(self, y: Tensor, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return where points of the image are afterwards.

        Example:
            >>> y, x = Transformation("rotation", 90).moved(torch.tensor(0.0), torch.tensor(4.0), (5, 5))
            >>> float(y), float(x)
            (0.0, 0.0)
        """
        return self._linear(y, x, size, inverse=False)

    def source(self, y: Tensor, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return which points of the image come to lie at some points."""
        return self._linear(y, x, size, inverse=True)

    def __call__(
        self, images: Float[Tensor, "n c h w"], border: Border = "reflect"
    ) -> Float[Tensor, "n c h w"]:
        """Return images of the same size, changed.

        Example:
            >>> Transformation("translation", 1)(torch.tensor([[[[1.0], [2.0], [3.0]]]])).flatten().tolist()
            [2.0, 1.0, 2.0]
        """
        if self.is_identity:
            return images
        size = (images.shape[2], images.shape[3])
        if self.kind == "rotation":
            y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
            return sampled(images, *self.source(y, x, size), border).reshape(images.shape)
        return self._along(self._along(images, 2, border), 3, border)

    def _linear(self, y: Tensor, x: Tensor, size: tuple[int, int], *, inverse: bool) -> tuple[Tensor, Tensor]:
        sign = -1 if inverse else 1
        if self.kind == "translation":
            return tuple(p + sign * self.amount * d for p, d in zip((y, x), self.direction))  # type: ignore[return-value]
        middle = [(length - 1) / 2 for length in size]
        down, right = y - middle[0], x - middle[1]
        if self.kind == "scale":
            factor = self.amount**sign
            return middle[0] + down * factor, middle[1] + right * factor
        cosine, sine = _turn(sign * self.amount)
        return middle[0] + cosine * down - sine * right, middle[1] + sine * down + cosine * right

    def _along(self, images: Tensor, dim: int, border: Border) -> Tensor:
        """Translation and scale act on each axis by itself."""
        length = images.shape[dim]
        at = torch.arange(length, dtype=torch.float64)
        source = self.source(at, at, (length, length))[dim - 2]
        if torch.equal(source, at):
            return images
        if torch.equal(source, source.round()) and self.kind == "translation":
            indices, inside = _within(source.long(), length, border)
            moved = images.index_select(dim, indices.to(images.device))
            mask = inside.to(images.device)
            return moved if bool(inside.all()) else moved * (mask[:, None] if dim == 2 else mask)
        weights = _weights(source, length, self.shrinks_by, border).to(_wide(images))
        wide = images.to(weights.dtype)
        made = weights @ wide if dim == 2 else wide @ weights.T
        return made.to(images.dtype)


def sampled(
    maps: Float[Tensor, "n c h w"], y: Tensor, x: Tensor, border: Border = "reflect"
) -> Float[Tensor, "n c p"]:
    """Return maps at some points, flattened, by bilinear interpolation; exact at whole coordinates."""
    height, width = maps.shape[2:]
    wide = maps.to(_wide(maps).dtype).flatten(2)
    result = torch.zeros((*maps.shape[:2], y.numel()), dtype=wide.dtype, device=maps.device)
    first_y, first_x = y.flatten().floor(), x.flatten().floor()
    part_y, part_x = y.flatten() - first_y, x.flatten() - first_x
    for down, weight_y in ((0, 1 - part_y), (1, part_y)):
        for right, weight_x in ((0, 1 - part_x), (1, part_x)):
            rows, is_row = _within(first_y.long() + down, height, border)
            columns, is_column = _within(first_x.long() + right, width, border)
            weight = weight_y * weight_x * is_row * is_column
            if bool((weight != 0).any()):
                taken = wide[:, :, (rows * width + columns).to(maps.device)]
                result += taken * weight.to(wide)
    return result.to(maps.dtype)


def _turn(degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns."""
    quarter, rest = divmod(degrees, 90)
    if rest == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarter) % 4]
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _within(index: Tensor, length: int, border: Border) -> tuple[Tensor, Tensor]:
    """Indices beyond the border, folded back, and which of them count."""
    inside = torch.ones_like(index, dtype=torch.bool)
    if border == "wrap":
        return index % length, inside
    if border == "zero":
        return index.clamp(0, length - 1), (index >= 0) & (index < length)
    period = max(2 * (length - 1), 1)
    folded = index % period
    return torch.minimum(folded, period - folded) if length > 1 else torch.zeros_like(index), inside


def _weights(source: Tensor, length: int, reach: float, border: Border) -> Float[Tensor, "o i"]:
    """How much every pixel of a line counts for each new one: a triangle, ``reach`` to either side."""
    weights = torch.zeros(len(source), length, dtype=torch.float64)
    for step in range(-math.ceil(reach), math.ceil(reach) + 2):
        near = source.floor().long() + step
        weight = (1 - (near - source).abs() / reach).clamp(min=0)
        indices, inside = _within(near, length, border)
        weights.scatter_add_(1, indices[:, None], (weight * inside)[:, None])
    totals = sum(
        (1 - (source.floor() + step - source).abs() / reach).clamp(min=0)
        for step in range(-math.ceil(reach), math.ceil(reach) + 2)
    )
    return weights / torch.as_tensor(totals)[:, None]


def _wide(images: Tensor) -> Tensor:
    """An empty tensor of the dtype and device to compute in."""
    is_narrow = images.dtype in (torch.float16, torch.bfloat16)
    return images.new_empty(0, dtype=torch.float32 if is_narrow else images.dtype)

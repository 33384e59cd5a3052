"""What is known of units besides their strongest images: how far down, how much and how often they go.

All four numbers of a map are taken while it lies in the processor's cache, a few images at a time: that is
three times as fast as one after the other over the whole batch.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.sight.collecting.block_sums import BlockSums

_PIECE = 2**20  # activations looked at in one go


@dataclass
class Statistics:
    """Of one layer's units over some images, all their positions counted alike.

    An image's own sums are taken in float32 (float64 for float64 maps), all sums of those in float64.

    Attributes:
        minimum: (u,) float64.
        num_active_positions: (u,) int64, positions in all images where the unit is positive.
        sums: (2, u) float64, of the activations and of their squares.
        num_values: activations seen per unit.
    """

    minimum: Float[Tensor, " u"]
    num_active_positions: Int[Tensor, " u"]
    sums: BlockSums = field(default_factory=BlockSums)
    num_values: int = 0

    @classmethod
    def empty(cls, num_units: int) -> "Statistics":
        """Return those of nothing."""
        return cls(
            torch.full((num_units,), torch.inf, dtype=torch.float64),
            torch.zeros(num_units, dtype=torch.int64),
        )

    def add(self, maps: Float[Tensor, "n u h w"], number: int) -> None:
        """Take a batch of maps into account, which has this number among all batches."""
        size = max(_PIECE // maps[0].numel(), 1)
        pieces = [_piece(piece) for piece in torch.split(maps, size)]
        minima, sums, squares, positions = (torch.cat(part).to("cpu").double() for part in zip(*pieces))
        # Adding zero makes 0 of −0: which of the two is the smaller one depends on the order.
        self.minimum = torch.minimum(self.minimum, minima.amin(0) + 0.0)
        self.num_active_positions += positions.sum(0).long()
        self.sums.add(number, torch.stack((sums.sum(0), squares.sum(0))))
        self.num_values += maps.shape[0] * maps.shape[2] * maps.shape[3]

    def skip(self, number: int) -> None:
        """Take note that there is nothing in the batch of this number."""
        self.sums.add(number, torch.zeros(2, len(self.minimum), dtype=torch.float64))

    def merge(self, other: "Statistics") -> None:
        """Take into account what another one saw, of other batches."""
        self.minimum = torch.minimum(self.minimum, other.minimum)
        self.num_active_positions = self.num_active_positions + other.num_active_positions
        self.sums.merge(other.sums)
        self.num_values += other.num_values

    @property
    def mean(self) -> Float[Tensor, " u"]:
        """Mean activation; NaN if nothing was seen."""
        return self._means()[0]

    @property
    def std(self) -> Float[Tensor, " u"]:
        """Standard deviation, sqrt(E[x²] − E[x]²): not to be trusted below a thousandth of the mean."""
        mean, mean_square = self._means()
        variance: Tensor = mean_square - mean.square()
        return variance.clamp_min(0).sqrt()

    @property
    def active_positions(self) -> Float[Tensor, " u"]:
        """Share of all positions at which the unit is positive; its sparsity is 1 minus that."""
        return self.num_active_positions.double() / self.num_values

    def _means(self) -> Float[Tensor, "2 u"]:
        total = self.sums.total()
        return (torch.zeros(2, len(self.minimum)) if total is None else total) / self.num_values


def _piece(maps: Float[Tensor, "n u h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each image's minimum, sum, sum of squares and number of positive positions, all (n, u)."""
    maps = maps if maps.dtype == torch.float64 else maps.float()
    scratch = torch.empty_like(maps)
    minima, sums = maps.amin((2, 3)), maps.sum((2, 3))
    squares = torch.mul(maps, maps, out=scratch).sum((2, 3))
    return minima, sums, squares, torch.gt(maps, 0, out=scratch).sum((2, 3))

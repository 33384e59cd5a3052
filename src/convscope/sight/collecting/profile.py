"""How strongly units answer to some images, one number each: by that, units of any two networks compare.

The images are chosen before the scan, evenly over the data set, so that every network which is shown the same
data set is asked about the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_IMAGES = 256


@dataclass
class Profile:
    """A layer's largest activations in the chosen images.

    Attributes:
        images: (k,) int64, the images' indices.
        peaks: (u, k) float32; NaN of images that weren't seen.

    Example:
        >>> profile = Profile.empty(1, [3, 8])
        >>> profile.add(torch.tensor([[0.5, 2.0]]), [7, 8])
        >>> profile.peaks.tolist()
        [[nan, 2.0]]
    """

    images: Int[Tensor, " k"]
    peaks: Float[Tensor, "u k"]

    @classmethod
    def empty(cls, num_units: int, images: Sequence[int] = ()) -> "Profile":
        """Return one of nothing seen."""
        return cls(torch.tensor(images, dtype=torch.int64), torch.full((num_units, len(images)), torch.nan))

    def add(self, peaks: Float[Tensor, "u n"], indices: Sequence[int]) -> None:
        """Take the largest activations in a batch into account, of those of its images that are chosen."""
        rows = [row for row, index in enumerate(indices) if index in self._columns]
        if rows:
            columns = [self._columns[indices[row]] for row in rows]
            self.peaks[:, columns] = peaks[:, rows].float()

    def merge(self, other: "Profile") -> None:
        """Take into account what another one saw, of other batches."""
        self.peaks = torch.where(self.peaks.isnan(), other.peaks, self.peaks)

    @cached_property
    def _columns(self) -> dict[int, int]:
        return {index: column for column, index in enumerate(self.images.tolist())}

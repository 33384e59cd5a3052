"""Distances between the signs of changes, for all pairs of images at once.

A sign is −1, 0 or 1. Two elements agree if all three fit, so zeros that coincide count as agreement; with
features that are mostly zero this is what makes Δ as small as Zeiler and Fergus's 0.07.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

_CHUNK = 1 << 20  # columns whose counts float32 holds exactly


@dataclass(frozen=True)
class Pairs:
    """Distances for one kind of mask; NaN for an image with itself, and for images that didn't change.

    Attributes:
        distance: share of all elements whose signs differ (normalised Hamming distance), symmetric.
        chance: the same, expected of independent signs with each image's own shares of −1, 0 and 1.
        opposed: of the elements that change in both, the share with opposite signs; NaN if there are none.
        changed: share of each image's elements that aren't 0.
    """

    distance: Float[Tensor, "n n"]
    chance: Float[Tensor, "n n"]
    opposed: Float[Tensor, "n n"]
    changed: Float[Tensor, " n"]

    @property
    def agreement(self) -> Float[Tensor, "n n"]:
        """Cohen's κ: 1 − distance / chance; NaN where chance is 0."""
        return 1 - self.distance / torch.where(self.chance > 0, self.chance, torch.nan)


def compare_signs(signs: Int8[Tensor, "n d"]) -> Pairs:
    """Return the distances between the rows of a matrix of signs.

    Example:
        >>> pairs = compare_signs(torch.tensor([[1, -1, 0, 0], [1, 1, 0, -1]], dtype=torch.int8))
        >>> float(pairs.distance[0, 1]), float(pairs.opposed[0, 1])
        (0.5, 0.5)
    """
    num_images, size = signs.shape
    alike, opposite, both = (torch.zeros(num_images, num_images, dtype=torch.float64) for _ in range(3))
    shares = torch.zeros(num_images, 3, dtype=torch.float64)
    for start in range(0, size, _CHUNK):
        part = signs[:, start : start + _CHUNK]
        minus, zero, plus = ((part == value).float() for value in (-1, 0, 1))
        alike += minus @ minus.t() + zero @ zero.t() + plus @ plus.t()
        crossed = plus @ minus.t()
        opposite += crossed + crossed.t()
        both += (1 - zero) @ (1 - zero).t()
        shares += torch.stack([each.sum(1).double() for each in (minus, zero, plus)], 1) / size
    changed = 1 - shares[:, 1]
    absent = torch.zeros_like(alike).fill_diagonal_(torch.nan)
    absent[changed == 0, :] = torch.nan
    absent[:, changed == 0] = torch.nan
    return Pairs(
        distance=1 - alike / size + absent,
        chance=1 - shares @ shares.t() + absent,
        opposed=opposite / both + absent,
        changed=changed,
    )


def mean_of(draws: list[Pairs]) -> Pairs:
    """Return the means over draws; of pairs in which an image didn't change, over the draws without."""
    return Pairs(
        *(
            torch.stack([getattr(each, name) for each in draws]).nanmean(0)
            for name in ("distance", "chance", "opposed", "changed")
        )
    )

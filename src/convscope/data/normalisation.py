"""Mean and deviation of images, as they are taken away and put back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.data.ahead import default_threads, read_ahead
from convscope.data.damage import Damage, all_damaged, reason_of
from convscope.data.listing import Listing
from convscope.data.pictures import Pictures, Pixels, evenly_spaced, fit

_SAMPLE = 512


@dataclass(frozen=True)
class Normalisation:
    """``(pixel / 255 − mean) / std`` for each channel.

    Attributes:
        mean: of each channel, on a scale of 0 to 1.
        std: of each channel, on the same scale.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Pixels) -> Tensor:
        """Return bytes ``(h, w, c)`` as a normalised float32 tensor ``(c, h, w)``."""
        image = (
            torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        )
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return image.div_(255).sub_(mean).div_(std)

    def inverse(self, images: Tensor) -> Tensor:
        """Return normalised ``(c, h, w)`` or ``(n, c, h, w)`` as values from 0 to 1, clipped."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


def measured_normalisation(pictures: Pictures, indices: Sequence[int]) -> Normalisation:
    """Return mean and deviation of each channel over pictures: all pixels of up to 512, evenly spaced.

    A channel that hardly varies gets a deviation of one grey level, 1/255, so that nothing is divided by 0.
    """
    return _normalisation_of(pictures.read(indices[place]) for place in evenly_spaced(len(indices), _SAMPLE))


def listed_normalisation(listing: Listing, size: tuple[int, int], channels: int) -> Normalisation:
    """Return the same of listed pictures as they are fitted to a size; damaged ones don't count.

    Raises:
        ConvscopeError: all of the 512 are damaged.
    """

    def read(index: int) -> Pixels | Damage:
        try:
            return fit(listing.read(index), size, channels)
        except Exception as error:  # broken bytes make decoders raise almost anything
            return Damage(listing.name(index), reason_of(error))

    chosen = evenly_spaced(len(listing), _SAMPLE)
    found = list(read_ahead(read, chosen, default_threads(), _SAMPLE))
    whole = [each for each in found if not isinstance(each, Damage)]
    if not whole:
        raise all_damaged(
            f"pictures of {listing.title}", [each for each in found if isinstance(each, Damage)]
        )
    return _normalisation_of(whole)


def _normalisation_of(pictures: Iterable[Pixels]) -> Normalisation:
    moments = []
    for picture in pictures:
        pixels = picture.astype(np.float64)
        moments.append((pixels.mean((0, 1)), np.square(pixels).mean((0, 1))))
    mean, square = np.mean(moments, axis=0)
    # Bytes in double precision: the difference of squares is exact to 1e-10.
    std = np.sqrt(np.maximum(square - mean**2, 1))
    return Normalisation(tuple((mean / 255).tolist()), tuple((std / 255).tolist()))

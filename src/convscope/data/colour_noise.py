"""Colour noise: all pixels of an image moved along the directions in which the data's colours vary.

Axes: n images, c channels, h rows, w columns, k directions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data.images import ImageSet
from convscope.data.pictures import Pixels, evenly_spaced

STRENGTH = 0.1
"""Standard deviation of the random factors, as published."""

_SAMPLE = 2000


@dataclass(frozen=True)
class ColourNoise:
    """Adds ``Σ_k p_k α_k λ_k`` to every pixel of an image, ``α_k`` drawn from N(0, 0.1²) for each image.

    ``λ_k`` and ``p_k`` are eigenvalues and eigenvectors of the covariance of the channels on a scale of 0 to
    1. The scale matters, because ``λ`` is a variance: on a scale of 0 to 255 it would be 255 times as strong.
    The paper doesn't say its scale; 0 to 1 is that of ImageNet's usual 0.2175, 0.0188 and 0.0045. Images are
    expected as a data set gives them, normalised, so that what is added is divided by ``std``; the result is
    not clipped.

    Attributes:
        eigenvalues: of the channels' covariance, largest first, on a scale of 0 to 1.
        eigenvectors: the direction of each, ``(k, c)``, of length 1, its largest part positive.
        std: what the images' channels were divided by, on a scale of 0 to 1; ones for images that weren't.

    Source: Krizhevsky et al. 2012, section 4.1.

    Example:
        >>> noise = ColourNoise((0.2,), ((1.0,),), (0.5,))
        >>> noise(torch.zeros(2, 1, 4, 4), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 4, 4])
    """

    eigenvalues: tuple[float, ...]
    eigenvectors: tuple[tuple[float, ...], ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images, each with a colour of its own added to all its pixels.

        Args:
            images: normalised, floating point, ``(n, c, h, w)`` or one image ``(c, h, w)``.
            generator: where chance comes from, on the CPU; one draw for each image and direction.

        Raises:
            ConvscopeError: the images have another number of channels.
        """
        channels = len(self.std)
        if images.shape[-3] != channels:
            raise ConvscopeError(
                f"colour noise of {channels} channels for images of {images.shape[-3]}",
                "as many as it was measured on",
                "measure it on the same data set",
            )
        if images.ndim == 3:
            return self(images[None], generator)[0]
        alpha_NK = STRENGTH * torch.randn(
            len(images), len(self.eigenvalues), generator=generator, dtype=torch.float64
        )
        scaled_NK = alpha_NK * torch.tensor(self.eigenvalues, dtype=torch.float64)
        colours_NC = scaled_NK @ torch.tensor(self.eigenvectors, dtype=torch.float64)
        added_NC = (colours_NC / torch.tensor(self.std, dtype=torch.float64)).to(images)
        return images + added_NC[:, :, None, None]


def measured_colour_noise(images: ImageSet) -> ColourNoise:
    """Return the colour noise of a set: of all pixels of at most 2,000 images, evenly spaced.

    Sums are float64; the covariance divides by the number of pixels.

    Args:
        images: the training images; their normalisation says what the noise is divided by.

    Raises:
        ConvscopeError: the set is empty.
    """
    chosen = evenly_spaced(len(images), _SAMPLE)
    if not chosen:
        raise ConvscopeError("colour noise of a split without images", "at least one", "give more images")
    covariance_CC = _covariance(images.picture(place) for place in chosen)
    values_K, vectors_CK = np.linalg.eigh(covariance_CC)
    vectors_KC = vectors_CK.T[::-1]
    # The sign of an eigenvector is the library's whim; the noise should depend on the generator alone.
    largest_K = np.abs(vectors_KC).argmax(axis=1)
    vectors_KC = vectors_KC * np.sign(vectors_KC[np.arange(len(vectors_KC)), largest_K])[:, None]
    return ColourNoise(
        eigenvalues=tuple(np.maximum(values_K[::-1], 0).tolist()),
        eigenvectors=tuple(tuple(row) for row in vectors_KC.tolist()),
        std=images.normalisation.std,
    )


def _covariance(pictures: Iterable[Pixels]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Covariance of the channels on a scale of 0 to 1, ``(c, c)``: the mean of products less that of means.

    The sums are of whole numbers below 2^53, and exact; the subtraction loses at most ten of 53 bits unless
    colours vary by less than a grey level.
    """
    count, sums, products = 0, np.zeros(()), np.zeros(())
    for picture in pictures:
        pixels = picture.reshape(-1, picture.shape[-1]).astype(np.float64)
        count += len(pixels)
        sums = sums + pixels.sum(0)
        products = products + pixels.T @ pixels
    mean = sums / count
    return np.asarray((products / count - np.outer(mean, mean)) / 255**2)

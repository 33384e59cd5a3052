"""What is random about a training image, and which part of an image evaluation sees.

Axes: c channels, h rows, w columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data import augmented
from convscope.data.colour_noise import ColourNoise, measured_colour_noise
from convscope.data.crops import centre_crop, random_crop, random_mirror
from convscope.data.images import ImageSet
from convscope.train.config import TrainConfig
from convscope.train.setting_rules import AugmentName

WINDOWS = 10
"""Windows of ten-crop evaluation: four corners and the centre, and the same five mirrored."""


@dataclass(frozen=True)
class Variation:
    """A random variation of one training image; every draw is from the generator that is handed in.

    Attributes:
        augment: which; see :class:`~convscope.train.config.TrainConfig`.
        crop: side of the windows, in pixels; None: whole images. Those that draw no window at random take
            the one in the middle.
        mirrors: whether a mirrored image still belongs to its class.
        noise: of ``"crop-colour"``.

    Source: Krizhevsky et al. 2012, section 4.1; Zeiler and Fergus 2013, section 3.1 (ten sub-crops).

    Example:
        >>> vary = Variation("crop", 24, mirrors=True)
        >>> vary(torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([1, 3, 24, 24])
    """

    augment: AugmentName
    crop: int | None = None
    mirrors: bool = True
    noise: ColourNoise | None = None

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return a variation of an image ``(1, c, h, w)``."""
        return _VARIATIONS[self.augment](self, image, generator)


@dataclass(frozen=True)
class CentreWindow:
    """The square in the middle of an image, the same every time.

    Attributes:
        crop: its side, in pixels.
    """

    crop: int

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the window of an image ``(1, c, h, w)``."""
        return centre_crop(image, self.crop)


def window(images: Tensor, side: int, number: int) -> Tensor:
    """Return one of the windows that :func:`convscope.data.crops.ten_crops` returns, alone.

    Args:
        images: ``(..., h, w)``, at least as large as the window.
        side: of the square, in pixels.
        number: from 0: top left, top right, bottom left, bottom right, centre; from 5: these mirrored.
    """
    height, width = images.shape[-2] - side, images.shape[-1] - side
    places = ((0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2))
    row, column = places[number % 5]
    cut = images[..., row : row + side, column : column + side]
    return cut.flip(-1) if number >= 5 else cut


def colour_noise_of(images: object) -> ColourNoise:
    """Return the colour noise of training images.

    Raises:
        ConvscopeError: their pixels aren't known, only what became of them.
    """
    if not isinstance(images, ImageSet):
        raise ConvscopeError(
            f"augment='crop-colour' for a {type(images).__name__}",
            "images whose pixels can be measured, as convscope.data.load_data returns them",
            "load them so, or take augment='crop'",
        )
    return measured_colour_noise(images)


def evaluation_window(config: TrainConfig) -> CentreWindow | None:
    """Return the window that is cut of images that are measured on; None for whole images.

    Ten-crop evaluation cuts its windows on the device, of whole images.
    """
    if config.crop is None or config.evaluation == "ten-crop":
        return None
    return CentreWindow(config.crop)


def _none(variation: Variation, image: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    return image if variation.crop is None else centre_crop(image, variation.crop)


def _shift(variation: Variation, image: Tensor, generator: torch.Generator) -> Tensor:
    return _none(variation, augmented(image, generator, flip=variation.mirrors), generator)


def _crop(variation: Variation, image: Tensor, generator: torch.Generator) -> Tensor:
    assert variation.crop is not None
    cut = random_crop(image, variation.crop, generator)
    return random_mirror(cut, generator) if variation.mirrors else cut


def _crop_colour(variation: Variation, image: Tensor, generator: torch.Generator) -> Tensor:
    assert variation.noise is not None
    return variation.noise(_crop(variation, image, generator), generator)


def _one_of_ten(variation: Variation, image: Tensor, generator: torch.Generator) -> Tensor:
    assert variation.crop is not None
    choices = WINDOWS if variation.mirrors else WINDOWS // 2
    number = int(torch.randint(choices, (), generator=generator))
    return window(image, variation.crop, number)


_VARIATIONS: dict[str, Callable[[Variation, Tensor, torch.Generator], Tensor]] = {
    "none": _none,
    "shift": _shift,
    "crop": _crop,
    "crop-colour": _crop_colour,
    "ten-crops": _one_of_ten,
}

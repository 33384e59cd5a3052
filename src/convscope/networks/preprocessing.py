"""How a network wants its images, and what its classes are called.

Both belong to the network, not to the images: timm's and torchvision's networks bring them along, our own
checkpoints carry them, and where nobody says, a default is taken and called one (``Preprocessing.source``).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convscope.core.errors import ConvscopeError

# Mean and standard deviation of ImageNet's training images on a scale of 0 to 1, as torchvision states them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """The way from a picture to a network's input: resize, crop the centre, scale, normalise.

    ``(pixel / 255 − mean) / std`` for each channel, after the shorter side has been resized to
    ``floor(side / crop_pct)`` and the centre has been cut out.

    Attributes:
        size: height and width of the input, in pixels.
        mean: of each channel, on a scale of 0 to 1; one value for grey networks.
        std: of each channel, on the same scale.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
        crop_pct: share of the resized picture's shorter side that is kept.
        source: where the values come from.

    Example:
        >>> from PIL import Image
        >>> prepare = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
        >>> prepare(Image.new("RGB", (64, 48), "white")).amax().item()
        1.0
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    source: str = "stated by the caller"

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the network's input for one picture.

        Args:
            image: any mode; converted to grey for one channel and to RGB for three.

        Returns:
            float32 ``(c, h, w)``.
        """
        cut = self._crop(image.convert("L" if len(self.mean) == 1 else "RGB"))
        pixels = torch.from_numpy(np.array(cut, dtype=np.float32) / 255)
        channels_first = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        mean, std = self._constants(channels_first)
        return ((channels_first - mean) / std).contiguous()

    def inverse(self, image: Tensor) -> Tensor:
        """Return inputs as pictures: values from 0 to 1, what lies outside clipped.

        Args:
            image: ``(c, h, w)`` or ``(n, c, h, w)``, floating point, as :meth:`__call__` returns it.
        """
        mean, std = self._constants(image)
        return (image * std + mean).clamp(0, 1)

    def _crop(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        # The epsilon keeps 299 / (299 / 342) from becoming 341.
        sides = (int(width / self.crop_pct + 1e-6), int(height / self.crop_pct + 1e-6))
        scale = max(side / length for side, length in zip(sides, image.size, strict=True))
        resized = tuple(int(length * scale + 1e-6) for length in image.size)
        image = image.resize((resized[0], resized[1]), _FILTERS[self.interpolation])
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(  # type: ignore[return-value]
            torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
            for values in (self.mean, self.std)
        )


def default_preprocessing(input_shape: tuple[int, ...], reference: str) -> Preprocessing | None:
    """Return ImageNet's mean and deviation for three channels, one half for others; None if not pictures.

    Args:
        input_shape: ``(c, h, w)``; None is returned for shapes with more or fewer sides.
        reference: whom it is for; becomes part of :attr:`Preprocessing.source`.
    """
    if len(input_shape) != 3:
        return None
    channels, height, width = input_shape
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    name = "ImageNet's mean and deviation" if channels == 3 else "mean and deviation of one half"
    return Preprocessing((height, width), mean, std, source=f"convscope's default for {reference}: {name}")


def default_class_names(num_classes: int) -> tuple[str, ...]:
    """Return ``"class 0"``, ``"class 1"``, … for a network whose classes nobody names."""
    return tuple(f"class {number}" for number in range(num_classes))


def read_class_names(file: str | Path) -> tuple[str, ...]:
    """Return the class names that a file lists.

    Args:
        file: one name a line, or JSON: a list of names, or an object from class numbers to names. Where an
            entry is itself a list, such as ``["n01440764", "tench"]``, its last item is the name.

    Raises:
        ConvscopeError: the file can't be read, isn't valid, or names no class.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        names = _names_in(json.loads(text)) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unreadable(path, f"can't be read ({error})") from error
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise _unreadable(path, "is empty")
    return tuple(names)


def _names_in(content: Any) -> list[str]:
    entries = (
        [content[str(number)] for number in range(len(content))] if isinstance(content, dict) else content
    )
    if not isinstance(entries, list):
        raise TypeError("neither a list nor an object")
    return [str(entry[-1] if isinstance(entry, list) else entry) for entry in entries]


def _unreadable(path: Path, what: str) -> ConvscopeError:
    return ConvscopeError(
        f"class names {str(path)!r}: {what}",
        "one name a line, or a JSON list or object of names",
        "correct the file given with --classes",
    )

"""Picture files as RGB bytes, however they were stored, and cut to one size.

Grey, palette, CMYK, 16-bit and transparent pictures become RGB; transparency is laid over white; a
camera's orientation is applied; of an animation the first frame counts.
"""

from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"})
OTHER_FORMATS = frozenset({".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm"})
"""Names of pictures that aren't read: they are told apart from files that aren't pictures."""
MOST_PIXELS = 89_478_485
"""Larger pictures aren't decoded, for a small file can claim any size; Pillow warns from here on too."""


def read_picture(file: str | Path | IO[bytes]) -> Pixels:
    """Return a picture file's pixels.

    Args:
        file: the path of a PNG, JPEG, WebP, BMP or GIF file, told by its content; or its bytes, opened.

    Returns:
        uint8 ``(h, w, 3)``, RGB.

    Raises:
        OSError: the file can't be read, is truncated, or is in another format.
        ValueError: it has more than :data:`MOST_PIXELS` pixels.
        Exception: whatever Pillow's decoders meet in broken bytes (``SyntaxError``, ``struct.error``, …).
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"{image.width}x{image.height} pixels are more than {MOST_PIXELS} (decompression bomb?)"
            )
        return np.array(as_rgb(ImageOps.exif_transpose(image)))


def fit(pixels: Pixels, size: tuple[int, int], channels: int = 3) -> Pixels:
    """Return a picture at the given size: its shorter side resized, the centre cut out.

    Args:
        pixels: uint8 ``(h, w, 3)``, or ``(h, w, 1)`` for grey.
        size: height and width of the result.
        channels: 3, or 1 for grey.

    Returns:
        uint8 ``(*size, channels)``.

    Example:
        >>> fit(np.zeros((40, 60, 3), np.uint8), (16, 16), channels=1).shape
        (16, 16, 1)
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image = image.convert("L" if channels == 1 else "RGB")
    if (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    fitted = np.array(image)
    return fitted[..., None] if channels == 1 else fitted


class Pictures(Protocol):
    """Where images come from.

    Attributes:
        labels: the class number of each picture.
    """

    labels: tuple[int, ...]

    def read(self, index: int) -> Pixels:
        """Return one picture, uint8 ``(h, w, channels)``."""
        ...


def evenly_spaced(length: int, limit: int | None) -> list[int]:
    """Return at most ``limit`` places among ``length``, in order and evenly spaced; all for None."""
    count = length if limit is None else min(length, limit)
    return [round(place * length / count - 1e-9) for place in range(count)] if count else []


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an opened picture in RGB, whatever its mode; see the module."""
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16 bits become 8 by dropping the lower half; Pillow's own conversion would clip at 255."""
    deep = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")

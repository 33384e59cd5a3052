"""Numbers as pictures, and pictures as tiles of one size.

Patches are shown in their colours. Projections are signed: grey is zero. Few of a deep unit's pixels are many
times as strong as the rest, so that a scale up to the very strongest would show them alone; and signs change
from pixel to pixel, so that reducing a picture takes most of its range away. Hence a picture is first
reduced, and then shown on a scale on which one number in 200 is cut off.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SMALLEST, LARGEST = 28, 48
GREY = 128
SHOWN = 0.995  # of a signed picture's numbers; what is larger is as bright or dark as can be
MOST_CUT = 10  # so many times at most
SIGNED_DISPLAY = (
    "0.5 + x / (2 s), s: the 99.5th percentile of |x| where it isn't 0, or a tenth of the largest if that is "
    "more; large pictures are averaged to the tile's size before"
)


def signed_display(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return signed numbers as brightness from 0 to 1: see :data:`SIGNED_DISPLAY`; zeros become 0.5.

    Example:
        >>> signed_display(np.array([-1.0, 0.0, 2.0], np.float32)).tolist()
        [0.25, 0.5, 1.0]
    """
    sizes = np.abs(pixels[pixels != 0])
    if not sizes.size:
        return np.full_like(pixels, 0.5)
    scale = max(float(np.quantile(sizes, SHOWN, method="higher")), float(sizes.max()) / MOST_CUT)
    return (0.5 + pixels / np.float32(2 * max(scale, 1e-30))).clip(0, 1)


def as_rgb(shown: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return brightness (c, h, w) from 0 to 1 as bytes (h, w, 3).

    Of more than three channels the first three are shown, of one or two their mean as grey.
    """
    colours = shown[:3] if len(shown) >= 3 else np.broadcast_to(shown.mean(0), (3, *shown.shape[1:]))
    return np.rint(colours * 255).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def as_picture(image: Float[Tensor, "h w c"]) -> NDArray[np.uint8]:
    """Return a signed image, such as ``Projection.image``, as bytes (h, w, 3): see :func:`signed_display`.

    Example:
        >>> as_picture(torch.tensor([[[-1.0], [0.0], [1.0]]]))[0, :, 0].tolist()
        [0, 128, 255]
    """
    return as_rgb(signed_display(image.detach().to("cpu", torch.float32).permute(2, 0, 1).numpy()))


def tile_of(extent: int) -> int:
    """Return the side of a layer's tiles: small pictures are enlarged by a whole number, large ones reduced.

    Args:
        extent: the longest side of the layer's pictures, in pixels.
    """
    return extent * -(-SMALLEST // extent) if extent < SMALLEST else min(extent, LARGEST)


def as_signed_tile(pixels: NDArray[np.float32], tile: int) -> NDArray[np.uint8]:
    """Return signed numbers (c, h, w) as a tile; see :data:`SIGNED_DISPLAY`."""
    height, width = _reduced_size(pixels.shape[1], pixels.shape[2], tile)
    if (height, width) != pixels.shape[1:]:
        channels = (Image.fromarray(each).resize((width, height), Image.Resampling.BOX) for each in pixels)
        pixels = np.stack([np.asarray(each) for each in channels])
    return as_tile(as_rgb(signed_display(pixels)), tile)


def as_tile(picture: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) as large as fits in a tile's middle, in its proportions, on grey."""
    fitted = _fitted(picture, tile)
    top, left = ((tile - length) // 2 for length in fitted.shape[:2])
    result = np.full((tile, tile, 3), GREY, np.uint8)
    result[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return result


def _fitted(picture: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
    """Enlarged by a whole number with its pixels visible, or reduced by averaging."""
    height, width = _reduced_size(picture.shape[0], picture.shape[1], tile)
    if (height, width) != picture.shape[:2]:
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    factor = tile // max(height, width)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _reduced_size(height: int, width: int, tile: int) -> tuple[int, int]:
    """Of a picture in its proportions, with no side longer than a tile's."""
    longest = max(height, width)
    if longest <= tile:
        return height, width
    return max(1, round(height * tile / longest)), max(1, round(width * tile / longest))


def filter_grid(weight: Float[Tensor, "o c kh kw"], gap: int = 1) -> Float[Tensor, "height width 3"]:
    """Return filters as one picture with values from 0 to 1, a row of √o filters beside one another.

    Every filter is shown as 0.5 + w / (2 max|w|) with its own maximum; of more than three input channels
    the mean is shown.
    """
    weight = weight.detach().float().cpu()
    num_filters, channels, height, width = weight.shape
    if channels != 3:
        weight = weight.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    across = int(np.ceil(np.sqrt(num_filters)))
    rows = -(-num_filters // across)
    grid = torch.ones(rows * (height + gap) - gap, across * (width + gap) - gap, 3)
    for index, kernel in enumerate(weight):
        top, left = (index // across) * (height + gap), (index % across) * (width + gap)
        shown = 0.5 + kernel / (2 * kernel.abs().max().clamp_min(1e-30))
        grid[top : top + height, left : left + width] = shown.permute(1, 2, 0)
    return grid

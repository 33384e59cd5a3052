"""Cuts of images that are larger than the network's input: one at random, the centre, or ten of each.

The recipe of AlexNet and ZFNet: images of 256×256, of which 224×224 (as printed; 227×227 makes the first
layer's arithmetic whole) are cut at random for training, and ten times for testing.

Axes: n images, c channels, h rows, w columns.
"""

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError


def random_crop(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return a square of each image, its place drawn uniformly, each image's for itself.

    Args:
        images: any dtype, ``(n, c, h, w)`` or one image ``(c, h, w)``.
        side: height and width of the square, in pixels.
        generator: where chance comes from, on the CPU; two draws for each image, row then column.

    Returns:
        A new tensor ``(n, c, side, side)`` or ``(c, side, side)``.

    Raises:
        ConvscopeError: the images are smaller than the square.

    Source: Krizhevsky et al. 2012, section 4.1.

    Example:
        >>> random_crop(torch.zeros(8, 3, 256, 256), 224, torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 224, 224])
    """
    height, width = _free_places(images, side)
    if images.ndim == 3:
        return random_crop(images[None], side, generator)[0]
    rows_and_columns = [(_drawn(height, generator), _drawn(width, generator)) for _ in range(len(images))]
    cut = images.new_empty(*images.shape[:2], side, side)
    for place, (row, column) in enumerate(rows_and_columns):
        cut[place] = images[place, :, row : row + side, column : column + side]
    return cut


def random_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images of which each is mirrored, left and right exchanged, with probability one half.

    Args:
        images: any dtype, ``(n, c, h, w)`` or one image ``(c, h, w)``.
        generator: where chance comes from, on the CPU; one draw for each image.

    Source: Krizhevsky et al. 2012, section 4.1.
    """
    if images.ndim == 3:
        return random_mirror(images[None], generator)[0]
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def centre_crop(images: Tensor, side: int) -> Tensor:
    """Return the square in the middle of images, as a view; half a pixel is rounded to the top left.

    Args:
        images: any dtype, ``(..., h, w)``.
        side: height and width of the square, in pixels.

    Raises:
        ConvscopeError: the images are smaller than the square.
    """
    height, width = _free_places(images, side)
    return _cut(images, height // 2, width // 2, side)


def ten_crops(images_NCHW: Tensor, side: int) -> Tensor:
    """Return the four corners and the centre of each image, and then the same five mirrored.

    The order is top left, top right, bottom left, bottom right, centre. A network's prediction is the mean
    of its ten softmaxes.

    Args:
        images_NCHW: any dtype, ``(n, c, h, w)``.
        side: height and width of the squares, in pixels.

    Returns:
        A new tensor ``(n, 10, c, side, side)``.

    Raises:
        ConvscopeError: the images are smaller than the squares.

    Source: Krizhevsky et al. 2012, section 4.1; Zeiler and Fergus 2013, section 3.
    """
    bottom, right = _free_places(images_NCHW, side)
    corners = [_cut(images_NCHW, row, column, side) for row in (0, bottom) for column in (0, right)]
    five = torch.stack([*corners, centre_crop(images_NCHW, side)], dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


def _free_places(images: Tensor, side: int) -> tuple[int, int]:
    """By how many pixels images are larger than a square, in height and width."""
    height, width = images.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise ConvscopeError(
            f"a cut of {side}×{side} pixels from images of {height}×{width}",
            "images at least as large as the cut",
            "load them larger, such as 256 for cuts of 224, or cut less",
        )
    return height - side, width - side


def _drawn(most: int, generator: torch.Generator) -> int:
    return int(torch.randint(most + 1, (), generator=generator))


def _cut(images: Tensor, row: int, column: int, side: int) -> Tensor:
    return images[..., row : row + side, column : column + side]

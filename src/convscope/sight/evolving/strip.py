"""A layer's evolution as one picture: epochs from left to right, units from top to bottom.

Each cell holds the projection and, to its right, the patch of the unit's strongest image; a dead unit's cell
and what couldn't be projected are grey. Projections are shown as in galleries.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convscope.core.files import whole_file
from convscope.sight.evolving.moment import Moment
from convscope.sight.picturing.tiles import GREY, as_signed_tile, as_tile, tile_of

_GAP = 2
_WHITE = 255


def save_strip(moments: Sequence[Moment], number: int, path: Path) -> None:
    """Write the strip of a layer as a PNG file.

    Args:
        moments: in order.
        number: of the layer.
        path: of the file.

    Raises:
        ConvscopeError: it can't be written.
    """
    units = list(moments[-1].layers[number].units)
    boxes = [each.box for moment in moments for each in moment.layers[number].units.values() if each.box]
    tile = tile_of(max([1, *(max(box.height, box.width) for box in boxes)]))
    across, down = 2 * tile + 2 * _GAP, tile + _GAP
    size = (len(units) * down - _GAP, len(moments) * across - 2 * _GAP, 3)
    pixels = np.full(size, _WHITE, np.uint8)
    for row, unit in enumerate(units):
        for column, moment in enumerate(moments):
            patch = moment.tensors.get(f"patch.{number}.{unit}")
            signed = moment.tensors.get(f"projection.{number}.{unit}")
            empty = np.full((tile, tile, 3), GREY, np.uint8)
            shown = (
                empty if signed is None else as_signed_tile(signed.float().numpy(), tile),
                empty if patch is None else as_tile(patch.numpy(), tile),
            )
            for side, picture in enumerate(shown):
                top, left = row * down, column * across + side * tile
                pixels[top : top + tile, left : left + tile] = picture
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")

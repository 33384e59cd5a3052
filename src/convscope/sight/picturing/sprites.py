"""A layer's tiles as few image files: sprites, which a page loads whole.

Units stand in order of their channels, in files of so many at most that browsers stay smooth. Enlarged
pictures, with their pixels as squares, are stored without loss: the files are smaller then, and colours,
which lossy WebP halves in resolution, stay. Others have quality 90.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.sight.picturing.tiles import GREY, tile_of

MOST_UNITS = 256
QUALITY = 90
_LONGEST = 16383  # of a WebP picture's side, in pixels


@dataclass(frozen=True)
class Layout:
    """Where a layer's tiles lie; see :class:`~convscope.sight.picturing.album.Sprite`.

    Attributes:
        num_units: of the layer.
        tile: side of a tile in pixels.
        side: tiles in a row of a unit's block.
        across: units in a row of a file.
        per_file: units in a file; the last one may have fewer.
        lossless: whether files are stored without loss.
    """

    num_units: int
    tile: int
    side: int
    across: int
    per_file: int
    lossless: bool

    @classmethod
    def of(cls, num_units: int, top: int, extent: int) -> "Layout":
        """Return the layout of a layer.

        Args:
            num_units: its channels.
            top: tiles for each.
            extent: longest side of its pictures, in pixels.

        Example:
            >>> Layout.of(num_units=600, top=9, extent=99)
            Layout(num_units=600, tile=48, side=3, across=16, per_file=256, lossless=False)
        """
        tile, side = tile_of(extent), int(np.ceil(np.sqrt(top)))
        longest = _LONGEST // (tile * side)
        if not longest:
            raise ConvscopeError(
                f"top={top}",
                f"at most {(_LONGEST // tile) ** 2} pictures of a unit",
                "9 is Zeiler and Fergus's",
            )
        per_file = min(MOST_UNITS, longest**2)
        across = int(np.ceil(np.sqrt(min(num_units, per_file))))
        return cls(num_units, tile, side, across, per_file, lossless=tile > extent)

    @property
    def num_files(self) -> int:
        """Files for one kind of picture."""
        return -(-self.num_units // self.per_file)

    def units_in(self, file: int) -> range:
        """Return the units of a file."""
        return range(file * self.per_file, min((file + 1) * self.per_file, self.num_units))

    def corner(self, unit: int, rank: int) -> tuple[int, int]:
        """Return the (y, x) of a tile in its file."""
        row, column = divmod(unit % self.per_file, self.across)
        down, right = divmod(rank, self.side)
        return (row * self.side + down) * self.tile, (column * self.side + right) * self.tile

    def save(self, file: int, tiles: Iterable[tuple[int, int, NDArray[np.uint8]]], path: Path) -> None:
        """Write one file as WebP; grey where there is no picture.

        Args:
            file: its number.
            tiles: unit, rank and picture (tile, tile, 3), of these units alone.
            path: of the file.
        """
        rows = -(-len(self.units_in(file)) // self.across)
        block = self.tile * self.side
        pixels = np.full((rows * block, self.across * block, 3), GREY, np.uint8)
        for unit, rank, tile in tiles:
            top, left = self.corner(unit, rank)
            pixels[top : top + self.tile, left : left + self.tile] = tile
        Image.fromarray(pixels).save(path, format="WEBP", lossless=self.lossless, quality=QUALITY)

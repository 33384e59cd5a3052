"""Small pictures that are held in memory as they come, and fitted when they are asked for."""

from collections.abc import Sequence

from convscope.data.pictures import Pixels, fit


class HeldPictures:
    """Pictures of one size in memory.

    Args:
        pixels: uint8 ``(n, height, width, channels)``, as they come.
        labels: the class number of each.
        size: height and width that they are fitted to.
        channels: 1, or 3 equal ones.

    Attributes:
        labels: the class number of each picture.
    """

    def __init__(self, pixels: Pixels, labels: Sequence[int], size: tuple[int, int], channels: int) -> None:
        self.labels = tuple(labels)
        self._pixels = pixels
        self._size = size
        self._channels = channels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Pixels:
        """Return one picture, uint8 ``(h, w, channels)``."""
        return fit(self._pixels[index], self._size, self._channels)

"""``digits``: scikit-learn's 1,797 handwritten digits of 8×8 pixels, enlarged.

Source: E. Alpaydin and C. Kaynak 1998, "Optical recognition of handwritten digits", UCI repository (the
test part), as distributed with scikit-learn.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from convscope.core.errors import ConvscopeError
from convscope.data.pictures import Pixels, fit

CLASSES: tuple[str, ...] = tuple("0123456789")
_DARKEST = 16


class Digits:
    """All digits, in scikit-learn's order.

    Args:
        size: height and width that they are enlarged to.
        channels: 1, or 3 equal ones.

    Attributes:
        labels: the digit that each picture shows.
    """

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self._pixels, labels = _bytes_and_labels()
        self.labels = tuple(labels.tolist())
        self._size = size
        self._channels = channels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Pixels:
        """Return one digit, white on black, uint8 ``(h, w, channels)``."""
        return fit(self._pixels[index], self._size, self._channels)


@cache
def _bytes_and_labels() -> tuple[Pixels, NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConvscopeError(
            f"data set 'digits': scikit-learn can't be imported ({error})",
            "scikit-learn, which it comes with",
            "pip install 'convscope[data]'",
        ) from error
    loaded = load_digits()
    grey = np.rint(loaded.images * (255 / _DARKEST)).astype(np.uint8)
    return grey[..., None], loaded.target

"""``digits``: scikit-learn's 1,797 handwritten digits of 8×8 pixels, enlarged.

Source: E. Alpaydin and C. Kaynak 1998, "Optical recognition of handwritten digits", UCI repository (the
test part), as distributed with scikit-learn.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from convscope.core.errors import ConvscopeError
from convscope.data.held import HeldPictures
from convscope.data.pictures import Pixels

CLASSES: tuple[str, ...] = tuple("0123456789")
_DARKEST = 16


def digits(size: tuple[int, int], channels: int) -> HeldPictures:
    """Return all digits, in scikit-learn's order, white on black.

    Args:
        size: height and width that they are enlarged to.
        channels: 1, or 3 equal ones.

    Raises:
        ConvscopeError: the package that they come with isn't installed.
    """
    pixels, labels = _bytes_and_labels()
    return HeldPictures(pixels, labels.tolist(), size, channels)


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

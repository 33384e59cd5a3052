"""Images that can be had by their number: of a tensor, a list, or a data set."""

import hashlib
from typing import Any, Protocol

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data.damage import Damage, reason_of
from convscope.data.pictures import evenly_spaced
from convscope.sight.sources.tensors import pixels_of

_SAMPLE = 16


class Numbered(Protocol):
    """Something that gives an image for a number.

    Attributes:
        title: what they are, as the beginning of a sentence.
        threads: how many may read at once; 0 where only the caller's thread may.
    """

    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, index: int) -> Tensor:
        """Return an image (c, h, w); an exception means that it is damaged."""
        ...

    def name(self, index: int) -> str:
        """Return what an image is called; empty where it has no name."""
        ...

    def label(self, index: int) -> str:
        """Return the name of its class; empty where nobody says."""
        ...

    def fingerprint(self) -> str:
        """Return a hash by which the same images are known again."""
        ...


class Items:
    """A tensor (n, c, h, w), or a list or data set of images (c, h, w), alone or first in a tuple.

    Args:
        source: has a length and gives items by number; is asked in the caller's thread only.
    """

    title = "images"
    threads = 0

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Tensor:
        """Return an image (c, h, w)."""
        return pixels_of(self._source[index], index, 3)

    def name(self, index: int) -> str:  # noqa: ARG002
        """Return an empty text."""
        return ""

    def label(self, index: int) -> str:  # noqa: ARG002
        """Return an empty text."""
        return ""

    def fingerprint(self) -> str:
        """Return a hash of the number of images and the values of 16, evenly spaced."""
        total = hashlib.sha256(str(len(self)).encode())
        for index in evenly_spaced(len(self), _SAMPLE):
            found = attempt(self, index)
            total.update(digest(found).encode() if isinstance(found, Tensor) else found.reason.encode())
        return total.hexdigest()


def attempt(images: Numbered, index: int) -> Tensor | Damage:
    """Return an image, or why it can't be had.

    Raises:
        ConvscopeError: what is there isn't an image at all, which no other image would mend.
    """
    try:
        return images.read(index)
    except ConvscopeError:
        raise
    except Exception as error:  # whatever decoders and data sets meet
        return Damage(images.name(index) or f"image {index}", reason_of(error))


def digest(image: Tensor) -> str:
    """Return a hash of an image's type, shape and values."""
    content: Any = image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(f"{image.dtype} {tuple(image.shape)}".encode() + content.tobytes()).hexdigest()

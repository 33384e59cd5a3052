"""Pictures in files, as images for a network: read, resized and normalised, in threads."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data import Listing
from convscope.data.pictures import MOST_PIXELS, Pixels
from convscope.networks import Preprocessing


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a listing, as a network takes them.

    Args:
        listing: where they are.
        preprocessing: their size, and how bytes become numbers.
        places: the pictures' numbers in the listing, in order.
        threads: how many read at once.

    Raises:
        ConvscopeError: the network takes neither grey nor colour pictures.
    """

    listing: Listing
    preprocessing: Preprocessing
    places: Sequence[int]
    threads: int

    def __post_init__(self) -> None:
        channels = len(self.preprocessing.mean)
        if channels not in (1, 3):
            raise ConvscopeError(
                f"pictures for {channels} channels",
                "1 (grey) or 3 (colour)",
                "give tensors with all channels from Python, as a Dataset",
            )

    def __len__(self) -> int:
        return len(self.places)

    @property
    def title(self) -> str:
        """What they are, as the beginning of a sentence."""
        return f"pictures of {self.listing.title}"

    def read(self, index: int) -> Tensor:
        """Return an image (c, h, w); any exception means that it is damaged."""
        return prepared(self.listing.read(self.places[index]), self.preprocessing)

    def name(self, index: int) -> str:
        """Return a picture's path, or its place in a tar file or data set."""
        return self.listing.name(self.places[index])

    def label(self, index: int) -> str:
        """Return the name of its class; empty where nobody says."""
        return self.listing.label(self.places[index])

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, choice and preprocessing."""
        chosen = self.places if isinstance(self.places, range) else list(self.places)
        facts = f"{self.listing.fingerprint()} {self.preprocessing!r} {chosen}"
        return hashlib.sha256(facts.encode()).hexdigest()


def prepared(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """Return a picture (h, w, 3) as a network's input (c, h, w).

    Raises:
        ValueError: it is so narrow that its resized form, before it is cropped, would be too large.
    """
    height, width, _ = pixels.shape
    scale = max(preprocessing.size) / preprocessing.crop_pct / min(height, width)
    if height * width * scale**2 > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels are too narrow to be resized")
    return preprocessing(Image.fromarray(pixels))

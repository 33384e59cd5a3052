"""Decoded pictures kept in memory that all loading processes share; and whether that pays.

A picture is decoded, resized and cut once, by whoever asks first; afterwards its bytes are copied. Pixels are
the same with and without. Limits: it saves nothing in the first epoch, and random variations, which come
after it, cost what they did. Pictures that a data set varies by itself aren't kept, as the first variation
would stay; eight pictures read twice tell.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.core.memory import available_memory, shared_memory_left
from convscope.core.preserved import preserved_rng
from convscope.data.pictures import Pictures, Pixels, evenly_spaced

SHARE_OF_MEMORY = 4
"""The cache takes at most a quarter of the available memory: the network, its gradients, the optimizer and
the batches under way need the rest, and other programs' page cache helps too."""
LEAST_GAIN = 2.0
"""How many times a copy reading must cost: below, a few timed pictures on a busy machine don't tell them
apart, and normalising, which both need and which takes longer than a copy, hides what is gained."""

_TIMED = 8


class Cached:
    """Pictures that are read once and then copied from shared memory, the same bytes.

    Processes that are forked after this was made, or that it is sent to as PyTorch's loaders send a data set
    to their workers, fill and read one memory. Two that fill one place at once write the same bytes. A flag
    says that a place is filled; it is written after the bytes. (Processors that swap stores, such as ARM's,
    are kept in order by the interpreter's own locks between the two; only x86-64 was tried.)

    Args:
        pictures: where they come from; the same index must always give the same pixels.
        shape: of every picture, ``(h, w, channels)``.
        indices: which to keep; others are read each time. None: all.

    Attributes:
        labels: the class number of each picture.

    Raises:
        ConvscopeError: there isn't so much shared memory.
    """

    def __init__(
        self, pictures: Pictures, shape: tuple[int, int, int], indices: Iterable[int] | None = None
    ) -> None:
        self.labels = pictures.labels
        self._pictures = pictures
        kept = np.unique(np.fromiter(range(len(self.labels)) if indices is None else indices, np.int64))
        self._slots = np.full(len(self.labels), -1, np.int64)
        self._slots[kept] = np.arange(len(kept))
        _check_room(len(kept) * int(np.prod(shape)))
        self._pixels = _shared(torch.zeros((len(kept), *shape), dtype=torch.uint8))
        self._filled = _shared(torch.zeros(len(kept), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_filled(self) -> int:
        """How many pictures are kept already, by whichever process."""
        return int(self._filled.sum().item())

    @property
    def num_bytes(self) -> int:
        """Bytes that the pictures take when all are kept."""
        return self._pixels.numel()

    def read(self, index: int) -> Pixels:
        """Return one picture, uint8 ``(h, w, channels)``, as a copy of one's own."""
        slot = self._slots[index]
        if slot < 0:
            return self._pictures.read(index)
        place = self._pixels[slot].numpy()
        if self._filled[slot]:
            return np.array(place)
        pixels = self._pictures.read(index)
        if pixels.shape != place.shape:
            raise ConvscopeError(
                f"picture {index} of shape {pixels.shape} in a cache of {place.shape}",
                "pictures of one size",
                "fit them first",
            )
        place[...] = pixels
        self._filled[slot] = True
        return pixels


@dataclass(frozen=True)
class CacheForecast:
    """What keeping decoded pictures would take and save.

    Attributes:
        needed_bytes: of all pictures.
        allowed_bytes: a quarter of the available memory, or half of what shared memory has left if that is
            less (loading processes hand over their batches in the rest);
            None where the system doesn't say.
        read_seconds: median time to read one picture, over a few.
        copy_seconds: median time to get it from a cache.
        steady: whether they were the same when they were read again.
    """

    needed_bytes: int
    allowed_bytes: int | None
    read_seconds: float
    copy_seconds: float
    steady: bool = True

    @property
    def fits(self) -> bool:
        """Whether the pictures fit; False where the system doesn't say what there is."""
        return self.allowed_bytes is not None and self.needed_bytes <= self.allowed_bytes

    @property
    def pays(self) -> bool:
        """Whether they fit, stay the same, and reading them costs at least twice a copy."""
        return self.fits and self.steady and self.read_seconds >= LEAST_GAIN * self.copy_seconds


def forecast_cache(pictures: Pictures, indices: Sequence[int]) -> CacheForecast:
    """Return what keeping some pictures would take and save, measured on at most eight of them.

    Args:
        pictures: where they come from.
        indices: which would be kept, at least one.
    """
    chosen = [indices[place] for place in evenly_spaced(len(indices), _TIMED)]
    with preserved_rng():
        first = pictures.read(chosen[0])  # also opens what is opened once
        few = Cached(pictures, (first.shape[0], first.shape[1], first.shape[2]), chosen)
        for index in chosen:
            few.read(index)
        (reads, again), (copies, kept) = (_timed(source, chosen) for source in (pictures, few))
    return CacheForecast(
        needed_bytes=len(set(indices)) * first.nbytes,
        allowed_bytes=_allowed(),
        read_seconds=reads,
        copy_seconds=copies,
        steady=all(map(np.array_equal, again, kept)),
    )


def _allowed() -> int | None:
    memory, shared = available_memory(), shared_memory_left()
    if memory is None:
        return None
    quarter = memory // SHARE_OF_MEMORY
    return quarter if shared is None else min(quarter, shared // 2)


def _check_room(num_bytes: int) -> None:
    left = shared_memory_left()
    if left is not None and num_bytes > left:
        raise ConvscopeError(
            f"a cache of {num_bytes:,} bytes with {left:,} of shared memory left",
            "room for all pictures in /dev/shm",
            "leave the cache off, load smaller pictures, or give the container more (docker run --shm-size)",
        )


def _shared(tensor: Tensor) -> Tensor:
    return tensor.share_memory_()  # type: ignore[no-untyped-call,no-any-return]


def _timed(source: Pictures, indices: Sequence[int]) -> tuple[float, list[Pixels]]:
    """Median seconds to read a picture, and the pictures."""
    seconds, found = [], []
    for index in indices:
        started = time.perf_counter()
        found.append(source.read(index))
        seconds.append(time.perf_counter() - started)
    return median(seconds), found

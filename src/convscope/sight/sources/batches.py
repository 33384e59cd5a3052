"""Numbered images in batches whose borders are fixed before anything is read."""

from collections.abc import Collection, Generator, Sequence

from torch import Tensor

from convscope.data.ahead import read_ahead
from convscope.data.damage import Damage, all_damaged
from convscope.sight.sources.items import Numbered, attempt
from convscope.sight.sources.tensors import no_images, stacked

_AHEAD = 2  # batches that may wait, decoded


def numbered_batches(
    images: Numbered, wanted: Collection[int] | None, batch_size: int, met: dict[int, Damage]
) -> Generator[tuple[list[int], Tensor]]:
    """Yield indices and tensor (n, c, h, w) of batch after batch; a damaged image shortens its own.

    Args:
        images: are read ahead, in threads, if they can be.
        wanted: indices, divided in ascending order; None for all.
        batch_size: how many a batch has.
        met: gets the damaged ones, by their index.

    Raises:
        ConvscopeError: there are no images, or none of all can be read.
    """
    if not len(images):
        raise no_images()
    numbers = range(len(images)) if wanted is None else _ascending(wanted)
    reading = read_ahead(lambda i: attempt(images, i), numbers, images.threads, _AHEAD * batch_size)
    is_empty = True
    try:
        for start in range(0, len(numbers), batch_size):
            read = {index: next(reading) for index in numbers[start : start + batch_size]}
            met.update({index: each for index, each in read.items() if isinstance(each, Damage)})
            whole = {index: each for index, each in read.items() if isinstance(each, Tensor)}
            if whole:
                is_empty = False
                yield list(whole), stacked(list(whole.values()), list(whole))
    finally:
        reading.close()
    if is_empty and wanted is None:
        raise all_damaged(images.title, [met[index] for index in sorted(met)])


def _ascending(wanted: Collection[int]) -> Sequence[int]:
    return wanted if isinstance(wanted, range) and wanted.step > 0 else sorted(wanted)

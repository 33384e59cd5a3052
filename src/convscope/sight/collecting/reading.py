"""Batches with the numbers by which a scan is divided, left off and taken up again.

Batch i of images that can be had by index are the images from i · batch_size to (i + 1) · batch_size − 1,
whoever reads it. What can only be read from its beginning is numbered as it comes, and what is done is read
but not looked at.
"""

from collections.abc import Iterator

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.processes import Processes
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.images import ImageSource

_ENDLESS = 2**62

Numbered = tuple[int, list[int], Tensor | None]
"""A batch's number, its images' indices, and their pixels; None where all its images are damaged."""


def share_of(images: ImageSource, done: Ranges, processes: Processes) -> Ranges:
    """Return the numbers of the batches that a process takes.

    Raises:
        ConvscopeError: several processes can't divide images of which nobody knows how many there are.
    """
    if images.length is None:
        if processes.size > 1:
            raise ConvscopeError(
                f"images that can only be read one after the other, for {processes.size} processes",
                "a tensor, a list or a Dataset, of which each process takes its share",
                "pass that, or use one process",
            )
        return done.gaps(_ENDLESS)
    num_batches = -(-images.length // images.batch_size)
    return done.gaps(num_batches).parts(processes.size)[processes.rank]


def numbered(images: ImageSource, share: Ranges) -> Iterator[Numbered]:
    """Yield the batches of a share in ascending order."""
    if images.length is None:
        for number, (indices, batch) in enumerate(images.batches()):
            if number in share:
                yield number, indices, batch
        return
    size = images.batch_size
    for start, stop in share.spans:
        expected = start
        for indices, batch in images.batches(range(start * size, min(stop * size, images.length))):
            number = indices[0] // size
            yield from ((missing, [], None) for missing in range(expected, number))
            yield number, indices, batch
            expected = number + 1
        yield from ((missing, [], None) for missing in range(expected, stop))


def num_images(images: ImageSource, share: Ranges) -> int | None:
    """Return how many images a share has, damaged ones among them; None if nobody knows."""
    if images.length is None:
        return None
    size = images.batch_size
    return sum(min(stop * size, images.length) - start * size for start, stop in share.spans)

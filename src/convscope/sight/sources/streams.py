"""Images that come one after the other, as often as they are asked for: loaders, lists of batches."""

import hashlib
from collections.abc import Collection, Generator
from typing import Any

from torch import Tensor

from convscope.sight.sources.items import digest
from convscope.sight.sources.tensors import no_images, pixels_of


class Stream:
    """Something that yields images (c, h, w) or batches (n, c, h, w), alone or first in a tuple.

    Args:
        source: can be iterated over again and again, and yields the same each time.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def batches(self, wanted: Collection[int] | None) -> Generator[tuple[list[int], Tensor]]:
        """Yield indices and images, as the source divides them.

        Raises:
            ConvscopeError: there are none.
        """
        chosen = None if wanted is None else set(wanted)
        last = -1 if chosen is None else max(chosen, default=-1)
        position = 0
        for item in self._source:
            batch = pixels_of(item, position, 3, 4)
            batch = batch if batch.dim() == 4 else batch[None]
            indices = range(position, position + len(batch))
            kept = [index for index in indices if chosen is None or index in chosen]
            if kept:
                yield kept, batch[[index - position for index in kept]]
            position += len(batch)
            if chosen is not None and position > last:
                break
        if position == 0:
            raise no_images()

    def fingerprint(self) -> str:
        """Return a hash of the first batch, and of the number of batches where it is known."""
        _, first = next(iter(self.batches(None)))
        length = str(len(self._source)) if hasattr(self._source, "__len__") else ""
        return hashlib.sha256(f"{length} {digest(first)}".encode()).hexdigest()

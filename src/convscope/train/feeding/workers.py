"""Loading processes that stay from epoch to epoch.

Starting two of them takes a tenth of a second each epoch where processes are forked, and three seconds
where each imports PyTorch anew (forkserver and spawn: Python 3.14, macOS, Windows). So one pair serves the
training and the validation images of a whole run: a request names its split and its epoch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

Request = tuple[str, int, list[int]]
"""A batch to load: split, epoch and the indices of its images."""


class BatchSource(Protocol):
    """Images of one split, of which whole batches can be asked for."""

    def at(self, epoch: int) -> "BatchSource":
        """Return the same images as of an epoch."""

    def __getitems__(self, indices: list[int]) -> Any:
        """Return a batch."""


class Workers:
    """Loads batches in processes that are started at the first one, and end with this object.

    Args:
        sources: returns the splits by name; called once, when the processes start.
    """

    def __init__(self, sources: Callable[[], Mapping[str, BatchSource]]) -> None:
        self._sources = sources
        self._asked: list[Request] = []
        self._loader: DataLoader[Any] | None = None
        self._kind: tuple[int, bool] | None = None
        self._busy = False

    def load(self, requests: Sequence[Request], num_workers: int, pin_memory: bool) -> Iterator[Any]:
        """Yield each batch, in order.

        While one iteration goes on, another gets processes of its own.
        """
        if self._busy:
            alone = Workers(self._sources)
            yield from alone.load(requests, num_workers, pin_memory)
            return
        if self._loader is None or self._kind != (num_workers, pin_memory):
            self._kind = num_workers, pin_memory
            self._loader = batch_loader(
                _Splits(self._sources()), self._asked, num_workers, pin_memory, stay=True
            )
        self._asked[:] = requests
        self._busy = True
        try:
            yield from self._loader
        finally:
            self._busy = False


def batch_loader(
    images: Any, batches: Sequence[Any], num_workers: int, pin_memory: bool, stay: bool = False
) -> "DataLoader[Any]":
    """Return a loader that asks ``images`` for each of ``batches``, and changes nothing about the answers.

    Args:
        images: has ``__getitems__``.
        batches: what it is called with.
        num_workers: processes; 0: this one.
        pin_memory: whether tensors are copied to pinned memory, from where a GPU fetches them faster.
        stay: whether the processes wait for the next iteration.
    """
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        persistent_workers=stay and num_workers > 0,
        # Without a generator of its own the loader would draw from the global one.
        generator=torch.Generator(),
    )


class _Splits(Dataset[Any]):
    """All splits as one set whose batches are asked for by :data:`Request`."""

    def __init__(self, sources: Mapping[str, BatchSource]) -> None:
        self.sources = dict(sources)

    def __getitems__(self, request: Request) -> Any:
        split, epoch, indices = request
        return self.sources[split].at(epoch).__getitems__(indices)


def _as_it_is(batch: Any) -> Any:
    return batch

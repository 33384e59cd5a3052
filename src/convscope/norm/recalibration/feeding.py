"""The user's data, batch by batch and as often as it is asked for; or run as the user says."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe.batches import batch_of, items_of, whole_batch_of

_REMEDY = "check the data, or say with forward=callable(model, batch) how the model takes it"


@dataclass(frozen=True, eq=False)
class FedBatch:
    """A batch on the model's device, and how the model is run on it.

    Attributes:
        run: runs the model on it and returns the outputs.
        labels: whatever came with the inputs; None if nothing did.
        num_samples: length of the first tensor.
        shapes: of its tensors, in words.
    """

    run: Callable[[], Any]
    labels: Any
    num_samples: int
    shapes: str


class Feed:
    """The data as batches, as often as they are asked for.

    Args:
        model: who will run them.
        data: a batch or an iterable of batches.
        forward: what runs the model on a batch as the data yields it; None to call it with the inputs.
        max_samples: no batch is read after so many samples.

    Raises:
        ConvscopeError: ``data`` is neither.

    Example:
        >>> import torch
        >>> feed = Feed(nn.Flatten(), [torch.zeros(4, 3, 2), torch.zeros(1, 3, 2)])
        >>> [(batch.num_samples, tuple(batch.run().shape)) for batch in feed]
        [(4, (4, 6)), (1, (1, 6))]
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        max_samples: int | None = None,
    ) -> None:
        self._model, self._forward, self._max_samples = model, forward, max_samples
        self._items = items_of(data)

    @property
    def is_repeatable(self) -> bool:
        """Whether the data can be read more than once; a generator can't."""
        return not isinstance(self._items, Iterator)

    @property
    def num_batches(self) -> int | None:
        """Batches of a whole pass; None if that isn't known."""
        if self._max_samples is not None:
            return None
        try:
            return len(self._items)  # type: ignore[arg-type]
        except TypeError:
            return None

    def __iter__(self) -> Iterator[FedBatch]:
        """Yield the batches, checked.

        Raises:
            ConvscopeError: a batch has no tensor or no sample, or inputs hold NaN or infinity.
        """
        num_samples = 0
        for number, item in enumerate(self._items):
            batch = self._fed(item, number)
            yield batch
            num_samples += batch.num_samples
            if self._max_samples is not None and num_samples >= self._max_samples:
                return

    def _fed(self, item: Any, number: int) -> FedBatch:
        model, forward = self._model, self._forward
        if forward is None:
            batch = batch_of(model, item, number, remedy=_REMEDY)
            _check_no_mask(model, batch.labels, number)
            run = partial(batch.run, model)
        else:
            batch = whole_batch_of(model, item, number)
            run = partial(batch.run, partial(forward, model))
        return FedBatch(run, batch.labels, batch.num_samples, batch.shapes)


def _check_no_mask(model: nn.Module, labels: Any, number: int) -> None:
    """Refuse a mask that would be taken for labels: padding would count, and nobody would see."""
    looks_like_one = isinstance(labels, Tensor) and labels.dtype == torch.bool
    if looks_like_one and "mask" in inspect.signature(model.forward).parameters:
        raise ConvscopeError(
            f"batch {number} with a boolean second tensor, for a model that takes a mask",
            "a dict of the model's arguments, for a second tensor is taken for labels",
            "give for example {'x': x, 'mask': mask}",
        )

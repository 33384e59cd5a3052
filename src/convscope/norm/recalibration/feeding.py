"""The user's data, batch by batch: what the model is called with, and the labels.

A batch is read as everywhere in convscope: a tensor; a tuple whose first element the model takes and whose
second is the labels; a dict whose entries are the model's arguments by name, but for one such as ``"label"``.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, IterableDataset

from convscope.core.errors import ConvscopeError

_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
_FORMS = "a batch (a tensor, (inputs, labels), or a dict), or an iterable of batches such as a DataLoader"


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, on the model's device.

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
        self._data = [data] if _is_batch(data) else _iterable(data)
        tensors = (*model.parameters(), *model.buffers())
        self._device = tensors[0].device if tensors else torch.device("cpu")

    @property
    def is_repeatable(self) -> bool:
        """Whether the data can be read more than once; a generator can't."""
        return not isinstance(self._data, Iterator)

    @property
    def num_batches(self) -> int | None:
        """Batches of a whole pass; None if that isn't known."""
        if self._max_samples is not None:
            return None
        try:
            return len(self._data)  # type: ignore[arg-type]
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, checked.

        Raises:
            ConvscopeError: a batch has no tensor or no sample, or inputs hold NaN or infinity.
        """
        num_samples = 0
        for number, item in enumerate(self._data):
            batch = self._batch(item, f"batch {number}")
            yield batch
            num_samples += batch.num_samples
            if self._max_samples is not None and num_samples >= self._max_samples:
                return

    def _batch(self, item: Any, name: str) -> Batch:
        item = tree_map(self._moved, item)
        args, kwargs, labels = _split(self._model, item)
        forward, model = self._forward, self._model
        tensors = [
            leaf
            for leaf in tree_leaves((args, kwargs) if forward is None else item)
            if isinstance(leaf, Tensor)
        ]
        _check(tensors, name, item)
        if forward is None:
            _check_finite(tensors, name)
        return Batch(
            run=(lambda: model(*args, **kwargs)) if forward is None else (lambda: forward(model, item)),
            labels=labels,
            num_samples=len(tensors[0]),
            shapes=", ".join(str(tuple(tensor.shape)) for tensor in tensors),
        )

    def _moved(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        # What was made in inference mode can't be written to outside of it, as some networks do.
        return leaf.to(self._device).clone() if leaf.is_inference() else leaf.to(self._device)


def _is_batch(data: Any) -> bool:
    if isinstance(data, Tensor | Mapping):
        return True
    if not isinstance(data, tuple | list) or len(data) < 2 or not isinstance(data[0], Tensor):
        return False
    # A list of two image tensors is two batches; labels are integers, or have fewer axes than images.
    second = data[1]
    return isinstance(second, Tensor) and (not second.is_floating_point() or second.dim() < data[0].dim())


def _iterable(data: Any) -> Iterable[Any]:
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise ConvscopeError(
            f"a data set of single samples ({type(data).__name__})", _FORMS, "wrap it in a DataLoader"
        )
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ConvscopeError(f"data of type {type(data).__name__}", _FORMS, "pass one of these")
    return data


def _split(model: nn.Module, item: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """The model's arguments by position and by name, and the labels."""
    if isinstance(item, Mapping):
        label = next((key for key in _LABEL_KEYS if key in item), None)
        rest = {str(key): value for key, value in item.items() if key != label}
        labels = None if label is None else item[label]
        parameters = inspect.signature(model.forward).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return (), rest, labels
        known = {key: value for key, value in rest.items() if key in parameters}
        return ((), known, labels) if known else (tuple(rest.values())[:1], {}, labels)
    if isinstance(item, tuple | list) and item:
        return (item[0],), {}, item[1] if len(item) > 1 else None
    return (item,), {}, None


def _check(tensors: list[Tensor], name: str, item: Any) -> None:
    if not tensors:
        raise ConvscopeError(
            f"{name} of type {type(item).__name__} without a tensor",
            _FORMS,
            "check the data, or say with forward=callable(model, batch) how the model takes it",
        )
    if tensors[0].dim() == 0 or tensors[0].numel() == 0:
        raise ConvscopeError(
            f"{name} with inputs of shape {tuple(tensors[0].shape)}", "at least one sample", "drop it"
        )


def _check_finite(tensors: list[Tensor], name: str) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point()):
        raise ConvscopeError(f"{name} with NaN or infinite values", "finite inputs", "clean the data")

"""The user's data as batches: which tensors the model is called with, and which are the labels."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, IterableDataset

from convscope.core.errors import ConvscopeError

_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
_FORMS = "a batch (images or (images, labels)), a loader of batches, an input shape, or None"


@dataclass(frozen=True, eq=False)
class Batch:
    """What the model is called with, and the labels.

    Attributes:
        args, kwargs: the model's arguments, on its device.
        labels: whatever came with the images, tensors on the model's device; None if nothing did.
        num_samples: length of the first input tensor.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Any
    num_samples: int

    @property
    def inputs(self) -> Any:
        """The arguments in the form that ``record`` takes."""
        return self.kwargs if self.kwargs and not self.args else self.args

    def first(self, num_samples: int) -> "Batch":
        """Return the batch's first samples, without labels."""

        def cut(leaf: Any) -> Any:
            whole = isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.num_samples
            return leaf[:num_samples] if whole else leaf

        args, kwargs = tree_map(cut, (self.args, self.kwargs))
        return Batch(args, kwargs, None, min(num_samples, self.num_samples))


def batches_of(model: nn.Module, data: Any) -> Iterator[Batch]:
    """Yield the batches in ``data``, checked and on the model's device.

    Args:
        model: who will run them.
        data: a tensor, a tuple ``(images, labels)``, a dict with an entry such as ``"label"``, or an
            iterable of these, such as a ``DataLoader``.

    Raises:
        ConvscopeError: there is no batch, a batch has no images, or images hold NaN or infinity.
    """
    num_batches = 0
    for item in [data] if _is_batch(data) else _iterable(data):
        yield _batch(model, item, f"batch {num_batches}")
        num_batches += 1
    if not num_batches:
        raise ConvscopeError("data without a single batch", "at least one batch", "check the loader's length")


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


def _batch(model: nn.Module, item: Any, name: str) -> Batch:
    inputs, labels = _split(model, item)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        # What was made in inference mode couldn't be differentiated through.
        return leaf.to(device).clone() if leaf.is_inference() else leaf.to(device)

    args, kwargs, labels = tree_map(moved, (*inputs, labels))
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors:
        raise ConvscopeError(
            f"{name} of type {type(item).__name__} without a tensor", _FORMS, "check the data"
        )
    if any(tensor.dim() == 0 or tensor.numel() == 0 for tensor in tensors[:1]):
        raise ConvscopeError(
            f"{name} with images of shape {tuple(tensors[0].shape)}", "at least one image", "drop it"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point()):
        raise ConvscopeError(f"{name} with NaN or infinite values", "finite images", "clean the data")
    return Batch(args, kwargs, labels, tensors[0].shape[0])


def _split(model: nn.Module, item: Any) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]:
    """The model's arguments, and the labels."""
    if isinstance(item, Mapping):
        label = next((key for key in _LABEL_KEYS if key in item), None)
        rest = {str(key): value for key, value in item.items() if key != label}
        labels = None if label is None else item[label]
        parameters = inspect.signature(model.forward).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return ((), rest), labels
        known = {key: value for key, value in rest.items() if key in parameters}
        return (((), known) if known else (tuple(rest.values())[:1], {})), labels
    if isinstance(item, tuple | list) and item:
        return ((item[0],), {}), (item[1] if len(item) > 1 else None)
    return ((item,), {}), None

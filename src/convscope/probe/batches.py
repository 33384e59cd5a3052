"""A user's data as batches for a real run: what the model is called with, and which are the labels.

The forms that data and batches come in are those of :mod:`convscope.probe.forms`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, IterableDataset

from convscope.core.errors import ConvscopeError
from convscope.probe.forms import is_batch, is_tensors, labels_in, taken_apart

FORMS = "a batch (a tensor, (inputs, labels), or a dict), or an iterable of batches such as a DataLoader"
"""What data may be, for messages."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What the model is called with, and the labels.

    Attributes:
        args, kwargs: the model's arguments, on its device.
        labels: whatever came with the inputs, tensors on the model's device; None if nothing did.
        num_samples: length of the first input tensor, or of the list of images.
        has_given_labels: whether the labels are among the model's arguments, too.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Any
    num_samples: int
    has_given_labels: bool = False

    @property
    def inputs(self) -> Any:
        """The arguments in the form that ``record`` takes."""
        return self.kwargs if self.kwargs and not self.args else self.args

    @property
    def shapes(self) -> str:
        """The shapes of the input tensors, for messages."""
        return ", ".join(str(tuple(tensor.shape)) for tensor in _tensors((self.args, self.kwargs)))

    def run(self, model: Callable[..., Any]) -> Any:
        """Call ``model`` with the batch and return what it returns.

        Every call gets copies that no gradient flows into: a network whose first operation works in place,
        such as ``x.sub_(mean)``, changes neither the user's data nor what the next run sees.

        Example:
            >>> batch = Batch((torch.tensor([1.0, 2.0]),), {}, None, 2)
            >>> [batch.run(lambda x: x.mul_(2)).tolist() for _ in range(2)]
            [[2.0, 4.0], [2.0, 4.0]]
        """
        args, kwargs = tree_map(_copied, (self.args, self.kwargs))
        return model(*args, **kwargs)

    def first(self, num_samples: int) -> "Batch":
        """Return the batch's first samples, without labels."""

        def cut(leaf: Any) -> Any:
            if _is_list_of_images(leaf):
                return leaf[:num_samples]
            whole = isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.num_samples
            return leaf[:num_samples] if whole else leaf

        args, kwargs = tree_map(cut, (self.args, self.kwargs), is_leaf=_is_list_of_images)
        return Batch(args, kwargs, None, min(num_samples, self.num_samples), self.has_given_labels)


def batches_of(model: nn.Module, data: Any, forms: str = FORMS) -> Iterator[Batch]:
    """Yield the batches in ``data``, checked and on the model's device.

    Args:
        model: who will run them.
        data: in any form of :mod:`convscope.probe.forms`.
        forms: what data may be, for messages.

    Raises:
        ConvscopeError: ``data`` is of no such form; there is no batch; a batch has no tensor or no sample, or
            inputs hold NaN or infinity.

    Example:
        >>> data = [(torch.zeros(4, 3), torch.arange(4)), (torch.zeros(1, 3), torch.arange(1))]
        >>> [(batch.shapes, batch.labels.tolist()) for batch in batches_of(nn.Flatten(), data)]
        [('(4, 3)', [0, 1, 2, 3]), ('(1, 3)', [0])]
    """
    number = -1
    for number, item in enumerate(items_of(data, forms)):
        yield batch_of(model, item, number, forms)
    if number < 0:
        raise no_batch()


def items_of(data: Any, forms: str = FORMS) -> Iterable[Any]:
    """Return the batches in ``data`` as they are, an iterator only if it can be read once.

    Raises:
        ConvscopeError: ``data`` is neither a batch nor an iterable of batches.
    """
    if is_batch(data):
        return [data]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise ConvscopeError(
            f"a data set of single samples ({type(data).__name__})", forms, "wrap it in a DataLoader"
        )
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ConvscopeError(f"data of type {type(data).__name__}", forms, "pass one of these")
    return data


def batch_of(
    model: nn.Module, item: Any, number: int, forms: str = FORMS, remedy: str = "check the data"
) -> Batch:
    """Return one batch, taken apart, checked and on the model's device.

    Args:
        model: who will run it.
        item: what the data yielded.
        number: its number in the data, for messages.
        forms: what data may be, for messages.
        remedy: what to do about a batch without a tensor, for messages.

    Raises:
        ConvscopeError: it has no tensor or no sample, or inputs hold NaN or infinity.
    """
    parts = taken_apart(model, item)
    args, kwargs, labels = _on_device_of(model, (parts.args, parts.kwargs, parts.labels))
    tensors = _tensors((args, kwargs))
    num_samples = _num_samples(tensors, item, number, forms, remedy)
    if args and _is_list_of_images(args[0]):
        num_samples = len(args[0])
    if not all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point()):
        raise ConvscopeError(f"batch {number} with NaN or infinite values", "finite inputs", "clean the data")
    return Batch(args, kwargs, labels, num_samples, parts.has_given_labels)


def whole_batch_of(model: nn.Module, item: Any, number: int) -> Batch:
    """Return a batch whose only argument is all that the data yields, for code that takes it apart itself.

    Raises:
        ConvscopeError: it has no tensor or no sample.
    """
    item, labels = _on_device_of(model, (item, labels_in(item)))
    # A mapping of another kind, such as a tokenizer's, is a leaf to PyTorch.
    tensors = _tensors(dict(item) if isinstance(item, Mapping) else item)
    num_samples = _num_samples(tensors, item, number, FORMS, "check the data")
    return Batch((item,), {}, labels, num_samples)


def no_batch() -> ConvscopeError:
    """Return the refusal of data that is empty."""
    return ConvscopeError("data without a single batch", "at least one batch", "check the loader's length")


def _is_list_of_images(tree: Any) -> bool:
    """Images (C, H, W) one by one, as detectors take them."""
    return isinstance(tree, list) and is_tensors(tree) and all(image.dim() == 3 for image in tree)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _on_device_of(model: nn.Module, tree: Any) -> Any:
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        # What was made in inference mode can neither be written to nor differentiated through outside of it.
        return leaf.to(device).clone() if leaf.is_inference() else leaf.to(device)

    return tree_map(moved, tree)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _num_samples(tensors: list[Tensor], item: Any, number: int, forms: str, remedy: str) -> int:
    if not tensors:
        raise ConvscopeError(f"batch {number} of type {type(item).__name__} without a tensor", forms, remedy)
    if tensors[0].dim() == 0 or tensors[0].numel() == 0:
        raise ConvscopeError(
            f"batch {number} with inputs of shape {tuple(tensors[0].shape)}", "at least one sample", "drop it"
        )
    return len(tensors[0])

"""The loss that is taken without one of the user's: cross-entropy between class labels and logits."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.checkup.measuring.outputs import named, tensors_of
from convscope.core.errors import ConvscopeError
from convscope.probe.class_scores import described_output, is_number_of_classes, other_widths

_IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


def default_loss(outputs: Any, labels: Any, num_classes: int | None = None) -> Tensor:
    """Return each sample's cross-entropy between logits and integer class labels, shape (N,).

    A mean over the sample's positions without those labelled −100; 0 where all are. Weighed by
    :func:`valid_positions`, the mean over samples is that of ``nn.CrossEntropyLoss()``.

    Args:
        outputs: what the model returned; see :func:`logits_among`, of which the first is taken.
        labels: integers (N, *): a tensor, an array or a list.
        num_classes: of the data, where that is known.

    Raises:
        ConvscopeError: a label isn't one of the classes, or there are no logits of that many samples.
    """
    labels = as_tensor(labels)
    fitting = logits_among(outputs, labels, num_classes)
    if not fitting:
        raise _no_logits(outputs, labels)
    logits, labels = fitting[0], labels.to(fitting[0].device)
    _check_classes(labels[labels != _IGNORED], logits.shape[1])
    dense = logits.to_dense() if logits.layout is not torch.strided else logits
    each = F.cross_entropy(dense.double(), labels.long(), reduction="none", ignore_index=_IGNORED)
    return each.reshape(len(labels), -1).sum(1) / valid_positions(labels).clamp_min(1)


def logits_among(outputs: Any, labels: Any, num_classes: int | None = None) -> list[Tensor]:
    """Return what may be the logits (N, classes, *) for labels (N, *), the likeliest first; empty if nothing.

    The tensor called ``logits``, alone; else every floating tensor of a fitting shape; if those differ in
    width, the ones that may be scores of the labels' classes, if any may.
    """
    labels = as_tensor(labels)
    by_name = named(outputs, "logits")
    known = tensors_of(outputs) if by_name is None else [by_name]
    fitting = [each for each in known if each.dim() >= 2 and labels.shape == each.shape[:1] + each.shape[2:]]
    if len({each.shape[1] for each in fitting}) < 2:
        return fitting
    largest = int(labels.max()) if labels.numel() else 0
    return [each for each in fitting if is_number_of_classes(each.shape[1], num_classes, largest)] or fitting


def described_logits(outputs: Any, labels: Any, num_classes: int | None = None) -> str:
    """Return which of several outputs is taken for the logits, in words; empty if there is one output.

    Example:
        >>> described_logits((torch.zeros(4, 3), torch.zeros(4, 1)), torch.zeros(4).long())
        'output 1 of 2, of shape (images, 3)'
    """
    known, fitting = tensors_of(outputs), logits_among(outputs, labels, num_classes)
    if len(known) < 2 or not fitting:
        return ""
    place = next((index for index, each in enumerate(known) if each is fitting[0]), 0)
    return described_output(place, len(known), fitting[0].shape[1])


def strange_classes(outputs: Any, labels: Any, num_classes: int | None) -> str:
    """Return why the data's classes can't be those of the network; empty if they may be."""
    if num_classes is None:
        return ""
    fitting = logits_among(outputs, labels, num_classes)
    gives = other_widths((each.shape[1] for each in fitting), num_classes)
    if not gives:
        return ""
    return (
        f"the data's classes aren't those of the network: the data has {num_classes:,}, the network gives "
        f"{gives} scores an image"
    )


def unclear_logits(outputs: Any, labels: Any, num_classes: int | None = None) -> str:
    """Return the shapes of the outputs that may be the logits if it isn't clear which are; empty if it is.

    Heads of one width, such as GoogLeNet's auxiliary ones, are alike, and the first of them is the network's.

    Example:
        >>> unclear_logits((torch.zeros(4, 64), torch.zeros(4, 10)), torch.zeros(4).long())
        '(4, 64) and (4, 10)'
        >>> unclear_logits((torch.zeros(4, 64), torch.zeros(4, 10)), torch.zeros(4).long(), num_classes=10)
        ''
    """
    fitting = logits_among(outputs, labels, num_classes)
    if len({each.shape[1] for each in fitting}) < 2:
        return ""
    shapes = list(dict.fromkeys(str(tuple(each.shape)) for each in fitting))
    return f"{', '.join(shapes[:-1])} and {shapes[-1]}"


def valid_positions(labels: Any) -> Tensor:
    """Return how many positions of each sample have a label, (N,).

    Example:
        >>> valid_positions(torch.tensor([[1, -100], [0, 2]]))
        tensor([1, 2])
    """
    labels = as_tensor(labels)
    valid: Tensor = labels != _IGNORED
    return valid.reshape(len(labels), -1).sum(1)


def as_tensor(labels: Any) -> Tensor:
    """Return labels as a tensor: of a tensor, an array or a list."""
    return labels if isinstance(labels, Tensor) else torch.as_tensor(labels)


def has_class_labels(labels: Any) -> bool:
    """Return whether labels are integers, as the default loss wants them: a tensor, an array or a list."""
    if isinstance(labels, list):
        return bool(labels) and all(type(label) is int for label in labels)
    if isinstance(labels, np.ndarray):
        return labels.ndim > 0 and labels.dtype.kind in "iu"
    return (
        isinstance(labels, Tensor)
        and labels.dim() > 0
        and not labels.is_floating_point()
        and labels.dtype is not torch.bool
    )


def _no_logits(outputs: Any, labels: Tensor) -> ConvscopeError:
    known = [tensor for tensor in tensors_of(outputs) if tensor.dim() >= 2]
    alike = next((tensor for tensor in known if tensor.shape[0] == len(labels)), None)
    shapes = [tuple(tensor.shape) for tensor in ([alike] if alike is not None else known)]
    return ConvscopeError(
        f"labels of shape {tuple(labels.shape)} for "
        + (f"logits of shape {shapes[0]}" if shapes else "outputs without logits (samples, classes)"),
        "one integer label per prediction",
        "pass loss=callable(outputs, labels), or batches without labels",
    )


def _check_classes(labels: Tensor, num_classes: int) -> None:
    if not labels.numel():
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= num_classes:
        raise ConvscopeError(
            f"labels from {least} to {most} for {num_classes} classes",
            f"labels from 0 to {num_classes - 1}",
            "check the data's classes against the network's outputs",
        )

"""What a network's output says about an image: scores, and where the true class ranks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from convscope.checkup.measuring.outputs import tensors_of
from convscope.core.errors import ConvscopeError
from convscope.probe.class_scores import described_output, is_number_of_classes

_SCORE_KEYS = ("logits", "scores", "out")


def scores_of(output: Any) -> Tensor:
    """Return the class scores ``(N, K)`` in a network's output.

    A tensor is taken as it is, of a mapping or an object the entry ``logits``, ``scores`` or ``out``, of a
    tuple or list the first one (so auxiliary heads aren't trained).

    Raises:
        ConvscopeError: there is no such tensor.

    Example:
        >>> scores_of({"logits": torch.zeros(2, 3)}).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Mapping):
        found = next((output[key] for key in _SCORE_KEYS if key in output), None)
    elif isinstance(output, tuple | list) and not _is_named(output):
        found = output[0] if output else None
    else:
        found = next((getattr(output, key) for key in _SCORE_KEYS if hasattr(output, key)), output)
    if not isinstance(found, Tensor) or found.ndim != 2:
        form = (
            f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        )
        raise ConvscopeError(
            f"the network's output is {form}",
            "class scores of shape (images, classes)",
            "give a classifier, or wrap the network so that it returns them",
        )
    return found


def which_scores(output: Any, num_classes: int) -> str:
    """Return which of a network's outputs :func:`scores_of` takes, in words; empty if there is one output.

    What the network itself calls by one of those names is right; so is the first output if it has a score for
    each class, or if nothing of another width could be the scores.

    Args:
        output: what the network returned.
        num_classes: of the data.

    Raises:
        ConvscopeError: there are no scores, or another output may be they as well.

    Example:
        >>> which_scores((torch.zeros(2, 3), torch.zeros(2, 1)), 3)
        'output 1 of 2, of shape (images, 3)'
    """
    taken, every = scores_of(output), tensors_of(output)
    if len(every) < 2:
        return ""
    width = taken.shape[1]
    others = [
        each
        for each in every
        if each.ndim == 2 and each.shape[1] != width and is_number_of_classes(each.shape[1])
    ]
    rivals = [each.shape[1] for each in others if each.shape[1] >= num_classes]
    if isinstance(output, tuple | list) and not _is_named(output) and width != num_classes and rivals:
        shapes = ", ".join(str(tuple(each.shape)) for each in every)
        raise ConvscopeError(
            f"a network with outputs of shapes {shapes} for {num_classes} classes",
            "class scores that can be told from the rest",
            "return them as the first output or the only one, or in a dict as 'logits'",
        )
    place = next(index for index, each in enumerate(every) if each is taken)
    return described_output(place, len(every), width)


def _is_named(output: Any) -> bool:
    return any(hasattr(output, key) for key in _SCORE_KEYS)


def true_class_rank(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the true one in each row: 0 where the network is right.

    Equal scores are ranked by class number, as argmax does, so a network which scores all classes alike
    isn't right every time; a NaN comes before everything, so a network that returns NaN is never right.

    Args:
        scores: ``(N, K)``, floating point.
        labels: ``(N,)`` int64, below K.

    Returns:
        ``(N,)`` int64 from 0 to K: the image counts for top-k where it is below k.

    Example:
        >>> true_class_rank(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]))
        tensor([1])
    """
    true = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    return (~(scores <= true) | ((scores == true) & before)).sum(1)


def predicted_class(scores: Tensor, num_classes: int) -> Tensor:
    """Return the class with the highest score of each row; -1 where there is none.

    Of equal scores the first one counts, so this is the true class exactly where :func:`true_class_rank` is
    0. A row with a NaN has no highest score, and a score beyond the classes names none of them.

    Args:
        scores: ``(N, K)``, floating point.
        num_classes: at most K.

    Returns:
        ``(N,)`` int64 from -1 to ``num_classes - 1``.

    Example:
        >>> predicted_class(torch.tensor([[0.1, 0.7], [0.5, 0.5], [float("nan"), 0.0]]), 2)
        tensor([ 1,  0, -1])
    """
    # argmax doesn't promise the first of equal scores on every device.
    is_highest = scores == scores.amax(1, keepdim=True)
    first = is_highest.long().cumsum(1).eq(0).sum(1)
    return torch.where(first < num_classes, first, -1)


def at_least_float32(scores: Tensor) -> Tensor:
    """Return scores in float32 if they are in half precision, which is too coarse for a loss."""
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores

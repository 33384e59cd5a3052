"""What a loss is worth that knows nothing of the single sample: a scale for losses whose unit isn't known."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from convscope.checkup.measuring.criterion import Criterion
from convscope.core.errors import ConvscopeError


def loss_by_chance(criterion: Criterion, outputs: Any, labels: Any) -> float | None:
    """Return the loss of a batch in which every sample has the outputs of another one.

    They are moved on by half of the batch. For squared errors that is about twice the targets' variance; it
    is the loss itself where labels don't matter.

    Args:
        criterion: how the loss is taken.
        outputs: what the model returned for a batch.
        labels: of the batch.

    Returns:
        None if it can't be told: outputs have no axis of at least two samples, or the loss is none then.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.0, 1.0, 4.0, 9.0])
        >>> loss_by_chance(Criterion(torch.nn.functional.mse_loss), values, values)
        40.0
    """
    leaves, structure = tree_flatten(outputs)
    samples = next((len(leaf) for leaf in leaves if _is_output(leaf)), 0)
    if samples < 2:
        return None
    moved = [
        leaf.roll(samples // 2, 0) if _is_output(leaf) and len(leaf) == samples else leaf for leaf in leaves
    ]
    try:
        found = float(criterion(tree_unflatten(moved, structure), labels).double().mean())
    except ConvscopeError:
        return None
    return found if abs(found) < float("inf") else None


def _is_output(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 0

"""Whether a loss compares the samples of a batch with one another.

A loss that is a sum over samples has for one sample's outputs a gradient that doesn't depend on the others'.
So half of the samples' outputs are moved, and the gradient for the other half is compared: by its direction,
since a factor common to all samples, such as a normalisation by what they sum to, compares nothing.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from convscope.checkup.measuring.criterion import Loss, users_loss
from convscope.checkup.measuring.loss_state import modules_of, without_trace


def loss_coupling(loss: Loss | None, outputs: Any, labels: Any) -> float | None:
    """Return the sine of the angle by which one half's gradient turns when the other half's outputs move.

    Outputs are moved towards those of other samples, so that probabilities stay probabilities.

    Args:
        loss: the user's; None for cross-entropy, which is a sum over samples.
        outputs: what the model returned for a batch.
        labels: of the batch.

    Returns:
        From 0 (a sum over samples) to 1; None if it can't be told: the outputs have no axis of at least two
        samples, or no gradient.

    Example:
        >>> outputs = torch.tensor([[1.0, 0.5], [0.2, 0.1], [0.3, 0.9], [2.0, 1.0]])
        >>> loss_coupling(lambda out, _: out.square().sum(), outputs, None) < 1e-6
        True
        >>> loss_coupling(lambda out, _: (out @ out.T).exp().sum(), outputs, None) > 0.1
        True
    """
    if loss is None:
        return 0.0
    leaves, structure = tree_flatten(outputs)
    samples = next((len(leaf) for leaf in leaves if _is_output(leaf)), 0)
    if samples < 2:
        return None
    moved = [_moved(leaf) if _is_output(leaf) and len(leaf) == samples else leaf for leaf in leaves]
    gradients = [_gradients(loss, variant, structure, labels, samples) for variant in (leaves, moved)]
    if gradients[0] is None or gradients[1] is None:
        return None
    before, after = gradients
    assert before is not None
    assert after is not None
    if not (before.norm() > 0 and after.norm() > 0):
        return None
    before, after = before / before.norm(), after / after.norm()
    return float((after - before * (before @ after)).norm())


def _is_output(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 0


def _moved(output: Tensor) -> Tensor:
    """The second half of the samples, each somewhere on the way to another sample of the batch."""
    half = len(output) // 2
    generator = torch.Generator().manual_seed(0)
    share = 0.25 + 0.5 * torch.rand(len(output) - half, generator=generator).to(output)
    share = share.reshape(-1, *[1] * (output.dim() - 1))
    return torch.cat((output[:half], output[half:] * (1 - share) + output.roll(1, 0)[half:] * share))


def _gradients(loss: Loss, leaves: list[Any], structure: Any, labels: Any, samples: int) -> Tensor | None:
    """The loss's gradient for the first half's outputs, as one vector; None if there is none."""
    ready = [leaf.detach().clone().requires_grad_() if _is_output(leaf) else leaf for leaf in leaves]
    wanted = [leaf for leaf in ready if _is_output(leaf) and len(leaf) == samples]
    # What is restored at its end may have been saved for the backward pass.
    with torch.enable_grad(), without_trace(modules_of(loss)):
        value = users_loss(loss, tree_unflatten(ready, structure), labels)
        if not value.requires_grad:
            return None
        found = torch.autograd.grad(value, wanted, allow_unused=True)
    parts = [g[: samples // 2].double().flatten().cpu() for g in found if g is not None]
    return torch.cat(parts) if parts and all(bool(part.isfinite().all()) for part in parts) else None

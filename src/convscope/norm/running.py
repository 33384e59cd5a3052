"""The running averages that batch statistics leave behind for test time.

    μ_running ← (1 − w) μ_running + w μ,        v_running ← (1 − w) v_running + w v

w, the weight of the new value, is the layer's ``momentum`` (0.1 unless told otherwise), or 1/t at the t-th
batch if that is None: the plain average over all batches so far. The batch is normalised by the biased
variance Σ(x − μ)²/m; the running average stores the unbiased one, Σ(x − μ)²/(m − 1), since it stands for
data beyond the batch. That is PyTorch's convention.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def new_value_weight(momentum: float | None, num_batches: Int[Tensor, ""] | None) -> float | Tensor:
    """Return w, the weight of the new value in the running averages.

    Args:
        momentum: that weight itself, or None for the average over all batches so far.
        num_batches: how many batches the averages have seen, the new one included; None if nobody counts,
            which leaves a cumulative average unmoved, as PyTorch does.

    Returns:
        A number, or for ``momentum=None`` a float64 tensor: reading the counter's value would fail on
        simulated tensors and stall an accelerator.

    Example:
        >>> new_value_weight(0.1, None), new_value_weight(None, torch.tensor(4)).item()
        (0.1, 0.25)
    """
    if momentum is not None:
        return momentum
    return 0.0 if num_batches is None else num_batches.double().reciprocal()


@torch.no_grad()
def update_running(running: Float[Tensor, " c"], value: Float[Tensor, " c"], weight: float | Tensor) -> None:
    """Move a running average towards a new value, in place: (1 − w) running + w value.

    The arithmetic is done in the wider of the two dtypes; the buffer keeps its own. (A half-precision
    buffer stops moving once w times the difference is under half a unit in its last place.)

    Args:
        running: the buffer.
        value: the statistic of the new batch.
        weight: w, from :func:`new_value_weight`.

    Example:
        >>> running = torch.zeros(2)
        >>> update_running(running, torch.tensor([1.0, 2.0]), 0.1)
        >>> running
        tensor([0.1000, 0.2000])
    """
    dtype = torch.promote_types(running.dtype, value.dtype)
    if isinstance(weight, Tensor):
        weight = weight.to(dtype)
    running.copy_(torch.lerp(running.to(dtype), value.to(dtype), weight))


def unbiased(variance: Float[Tensor, " c"], count: int) -> Float[Tensor, " c"]:
    """Return Σ(x − μ)²/(m − 1) from Σ(x − μ)²/m, for m = ``count`` values; m must be at least 2.

    Example:
        >>> unbiased(torch.tensor([1.0]), 2)
        tensor([2.])
    """
    return variance * (count / (count - 1))

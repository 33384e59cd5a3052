"""How near does an affine map of group norm's x̂ come to given values? Least squares from a few sums.

For every channel, γ' and β' are to bring γ' x̂ + β' nearest to a target t over all samples and positions:

    γ' = Σ(x̂ − mean x̂)(t − mean t) / Σ(x̂ − mean x̂)²,      β' = mean t − γ' mean x̂

x̂ is never made. Within one sample all values of a channel are scaled and shifted alike, x̂ = r (x − μ) with
the μ and r of its group, so means and centred sums of x and t over space, per sample and channel, tell
everything; the group's own statistics are pooled from them as well. All of it is float64, and no sum is of
values that haven't been centred, so that large means cost no digits.

Axis letters: N samples, C channels, S positions, G groups, c channels of a group, P parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK_VALUES = 2**21
# x̂ of a group has a deviation of 1: a channel that deviates by less than this is constant but for rounding.
_CONSTANT = 1e-9


class PairSums(NamedTuple):
    """Number, means and centred sums of x̂ and a target, per channel, in float64 on the CPU.

    Attributes:
        number: values per channel.
        mean_x, mean_t: the means.
        xx, xt, tt: Σ of the products of deviations from them.
    """

    number: Float[Tensor, "..."]
    mean_x: Float[Tensor, "*p c"]
    mean_t: Float[Tensor, "*p c"]
    xx: Float[Tensor, "*p c"]
    xt: Float[Tensor, "*p c"]
    tt: Float[Tensor, "*p c"]


def pair_sums(
    x: Float[Tensor, "n c *s"], target: Float[Tensor, "n c *s"], num_groups: int, eps: float
) -> PairSums:
    """Return the sums of x̂, as group norm makes it of ``x``, and a target of the same shape.

    Args:
        x: a group norm's input.
        target: what its output should be.
        num_groups: groups; it divides C.
        eps: ε of the group norm.

    Example:
        >>> x = torch.tensor([[[1.0, 3.0]], [[4.0, 8.0]]])
        >>> found = pair_sums(x, 2 * x, num_groups=1, eps=0.0)
        >>> found.mean_x.item(), found.mean_t.item(), found.xx.item(), found.xt.item(), found.tt.item()
        (0.0, 8.0, 4.0, 12.0, 104.0)
    """
    samples = max(1, _CHUNK_VALUES // max(1, x[0].numel()))
    chunks = zip(torch.split(x, samples), torch.split(target, samples), strict=True)
    return merged_pairs([_of_chunk(*chunk, num_groups, eps) for chunk in chunks])


def merged_pairs(parts: Sequence[PairSums]) -> PairSums:
    """Return the sums over the union of several sets of pairs, at least one: Chan's formula for pairs.

    Example:
        >>> one, x = torch.ones(()).double(), torch.arange(3.0).double()[:, None]
        >>> parts = [PairSums(one, value, 2 * value, 0 * value, 0 * value, 0 * value) for value in x]
        >>> merged_pairs(parts).xt.item()  # of 0, 1, 2 and 0, 2, 4
        4.0
    """
    return _united(PairSums(*(torch.stack(field) for field in zip(*parts, strict=True))))


def fitted(sums: PairSums) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return γ' and β' of least squares; a channel whose x̂ is constant gets γ' = 0 and the target's mean.

    Example:
        >>> x = torch.tensor([[[1.0, 3.0]], [[4.0, 8.0]]])
        >>> [number.item() for number in fitted(pair_sums(x, 2 * x, num_groups=1, eps=0.0))]
        [3.0, 8.0]
    """
    varies = sums.xx > sums.number * _CONSTANT**2
    weight = (sums.xt / sums.xx).where(varies, 0)
    return weight, sums.mean_t - weight * sums.mean_x


def residual(sums: PairSums, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"]) -> float:
    """Return the root mean square of γ x̂ + β − t over that of t's deviation, all channels together.

    0 is exact, 1 no better than each channel's mean. For targets that don't vary at all: 0 or infinity.
    """
    offset = weight * sums.mean_x + bias - sums.mean_t
    errors = sums.tt - 2 * weight * sums.xt + weight.square() * sums.xx + sums.number * offset.square()
    error, spread = float(errors.clamp_min(0).sum()), float(sums.tt.sum())
    if spread == 0:
        return 0.0 if error == 0 else float("inf")
    return float((error / spread) ** 0.5)


def _of_chunk(x: Tensor, target: Tensor, num_groups: int, eps: float) -> PairSums:
    """The sums of a few samples: over space, then from those over samples."""
    x_NCS, t_NCS = (tensor.double().reshape(*tensor.shape[:2], -1) for tensor in (x, target))
    positions = x_NCS.shape[2]
    mean_x_NC, mean_t_NC = x_NCS.mean(2), t_NCS.mean(2)
    dx_NCS, dt_NCS = x_NCS - mean_x_NC[..., None], t_NCS - mean_t_NC[..., None]
    products = (dx_NCS.square(), dx_NCS * dt_NCS, dt_NCS.square())
    xx_NC, xt_NC, tt_NC = (product.sum(2).cpu() for product in products)
    mean_x_NC, mean_t_NC = mean_x_NC.cpu(), mean_t_NC.cpu()
    mu_NC, r_NC = _group_statistics(mean_x_NC, xx_NC, positions, num_groups, eps)
    by_sample = PairSums(
        torch.full((len(x), 1), positions, dtype=torch.float64),
        r_NC * (mean_x_NC - mu_NC), mean_t_NC, r_NC.square() * xx_NC, r_NC * xt_NC, tt_NC,
    )  # fmt: skip
    return _united(by_sample)


def _group_statistics(
    mean_NC: Tensor, squares_NC: Tensor, positions: int, num_groups: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each channel's group, pooled from its channels' means and squares."""
    split = (len(mean_NC), num_groups, -1)
    mean_NGc, squares_NGc = mean_NC.view(split), squares_NC.view(split)
    mean_NG1 = mean_NGc.mean(2, keepdim=True)
    squares_NGc = squares_NGc + positions * (mean_NGc - mean_NG1).square()
    r_NG1 = (squares_NGc.mean(2, keepdim=True) / positions + eps).rsqrt()
    return mean_NG1.expand_as(mean_NGc).reshape_as(mean_NC), r_NG1.expand_as(mean_NGc).reshape_as(mean_NC)


def _united(parts: PairSums) -> PairSums:
    """The union of the sets along the first dimension."""
    number_P1 = parts.number.reshape(len(parts.mean_x), -1)
    number = number_P1.sum(0)
    mean_x, mean_t = ((number_P1 * mean).sum(0) / number for mean in (parts.mean_x, parts.mean_t))
    dx, dt = parts.mean_x - mean_x, parts.mean_t - mean_t
    return PairSums(
        number,
        mean_x,
        mean_t,
        parts.xx.sum(0) + (number_P1 * dx.square()).sum(0),
        parts.xt.sum(0) + (number_P1 * dx * dt).sum(0),
        parts.tt.sum(0) + (number_P1 * dt.square()).sum(0),
    )

"""Filter by filter: which are dead, weak, dominant, or copies of one another?

Filters are compared by the RMS of their weights times the scale which follows (a batch norm's gamma /
sqrt(var + eps)), since a normalisation undoes the size of the weights before it.

Zeiler and Fergus renormalised filters whose RMS exceeded 0.1 for pixels in [−128, 128]. A response is as
large as weights times pixels, so that for pixels in [−a, a] the same radius is 0.1 · 128 / a.
"""

import torch
from jaxtyping import Float
from torch import Tensor

WEAK = 0.1
"""Share of the median filter's RMS below which a filter is weak."""
WEIGHT_DEAD = 1e-3
"""Share below which it has died: float32 still holds it, its response no longer matters."""
DOMINANT = 3.0
"""Multiple of the median filter's RMS above which a filter dominates."""
FENCE = 1.5
"""How many interquartile ranges beyond the quartiles a filter's log strength must lie, too, to stand out:
trained filters behind a batch norm differ by an order of magnitude without harm, high frequencies being
amplified most (EfficientNet-Lite0: 0.15 to 10.6 times the median)."""
COPIES = 0.95
"""|cosine| above which two filters are copies."""
ZF_RADIUS, ZF_RANGE = 0.1, 128.0


def strength(weight_OCHW: Float[Tensor, "o c h w"], scale: Float[Tensor, " o"] | None) -> Float[Tensor, " o"]:
    """Return each filter's RMS, times the scale's size where there is one."""
    rms = weight_OCHW.detach().double().cpu().square().mean((1, 2, 3)).sqrt()
    return rms if scale is None else rms * scale.abs().cpu()


def dominance(strengths: Float[Tensor, " o"]) -> Float[Tensor, " o"]:
    """Return strengths divided by their median, over the filters with more than a thousandth of the largest.

    Example:
        >>> dominance(torch.tensor([0.0, 0.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    alive = strengths[strengths > WEIGHT_DEAD * strengths.max()]
    return strengths / alive.quantile(0.5) if len(alive) else torch.zeros_like(strengths)


def fences(relative: Float[Tensor, " o"]) -> tuple[float, float]:
    """Return the strengths below and above which a filter stands out from the others, by Tukey's rule.

    Args:
        relative: strengths divided by their median; those that have vanished don't count.

    Example:
        >>> low, high = fences(torch.tensor([0.01, 1.0, 1.0, 1.0, 1.0, 10.0]).double())
        >>> round(low, 6), round(high, 6)
        (1.0, 1.0)
    """
    alive = relative[relative >= WEIGHT_DEAD].log()
    if not len(alive):
        return 0.0, float("inf")
    quarter, three = alive.quantile(torch.tensor([0.25, 0.75], dtype=alive.dtype))
    reach = FENCE * (three - quarter)
    return float((quarter - reach).exp()), float((three + reach).exp())


def equivalent_radius(largest_pixel: float) -> float | None:
    """Return Zeiler and Fergus's radius of 0.1 for pixels in ±``largest_pixel``; None for black images.

    Example:
        >>> equivalent_radius(128.0), equivalent_radius(2.0)
        (0.1, 6.4)
    """
    return ZF_RADIUS * ZF_RANGE / largest_pixel if largest_pixel > 0 else None


def copies(weight_OCHW: Float[Tensor, "o c h w"]) -> tuple[tuple[int, ...], ...]:
    """Return groups of filters which are linked by pairs with |cosine| > 0.95; filters of zeros are in none.

    Example:
        >>> w = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-2, 0.1, 0], [0, 0, 0]])
        >>> copies(w[:, :, None, None])
        ((0, 2),)
    """
    flat = weight_OCHW.detach().double().cpu().flatten(1)
    directions = torch.nn.functional.normalize(flat, eps=1e-300)
    linked = (directions @ directions.T).abs() > COPIES
    groups, seen = list[tuple[int, ...]](), set[int]()
    for first in range(len(flat)):
        if first not in seen:
            group = _reached(linked, first)
            seen |= group
            if len(group) > 1:
                groups.append(tuple(sorted(group)))
    return tuple(groups)


def _reached(linked: Tensor, first: int) -> set[int]:
    found, pending = {first}, [first]
    while pending:
        new = set(linked[pending.pop()].nonzero().flatten().tolist()) - found
        found |= new
        pending += new
    return found

"""What a batch norm's numbers make of it: s = γ / √(v + ε) and t = β − s μ; and which make no sense."""

from collections.abc import Mapping

import numpy as np

from convscope.fold.gauge.scales import Numbers
from convscope.fold.recorded.flow import Stays

WITHOUT = "build it with track_running_stats=True, then convscope.norm.recalibrate(model, loader)"
"""What helps a batch norm without running statistics."""
ANEW = "measure them anew: convscope.norm.recalibrate(model, loader)"
"""What helps one whose running statistics make no sense."""

_MOST_LISTED = 3


def affine(operands: Mapping[str, Numbers], eps: float) -> tuple[Numbers, Numbers, Numbers]:
    """Return scale γ / √(v + ε), shift β − s μ and spread √(v + ε).

    Args:
        operands: ``running_mean``, ``running_var``, ``weight`` and ``bias`` if it has them; float64, (C,).
        eps: ε.

    Raises:
        Stays: some of them aren't finite, or there is no root.

    Example:
        >>> import numpy as np
        >>> affine({"running_mean": np.array([3.0]), "running_var": np.array([4.0])}, 0.0)
        (array([0.5]), array([-1.5]), array([2.]))
    """
    mean, var = operands["running_mean"], operands["running_var"]
    wrong = _not_finite({"running_mean": mean, "running_var": var})
    if wrong:
        raise Stays(f"its running statistics aren't finite: {wrong}", ANEW)
    lowest = var.min(initial=np.inf)
    if lowest < 0 or lowest + eps <= 0:
        raise Stays(f"its running_var goes down to {lowest:.3g}, of which there is no square root", ANEW)
    learnt = {name: operands[name] for name in ("weight", "bias") if name in operands}
    wrong = _not_finite(learnt)
    if wrong:
        raise Stays(f"its weight or bias isn't finite: {wrong}")
    scale = learnt.get("weight", np.ones_like(var)) / np.sqrt(var + eps)
    shift = learnt.get("bias", np.zeros_like(mean)) - scale * mean
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise Stays("its scale or shift is beyond float64")
    return scale, shift, np.sqrt(var + eps)


def _not_finite(tensors: Mapping[str, Numbers]) -> str:
    """Which tensors aren't finite, in how many channels, and in which first; "" if all are."""
    found = []
    for name, numbers in tensors.items():
        (where,) = np.nonzero(~np.isfinite(numbers))
        if where.size:
            first = ", ".join(str(channel) for channel in where[:_MOST_LISTED])
            more = ", …" if where.size > _MOST_LISTED else ""
            found.append(f"{name} in {where.size} of {numbers.size} channels ({first}{more})")
    return ", ".join(found)

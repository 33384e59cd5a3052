"""How far values of a network after a change are from what they are to be, relative to their size."""

import torch
from torch import Tensor

from convscope.fold.planning.plan import Place

# An output that is tiny beside the others is compared with this part of their size.
_FLOOR = 1e-6

# Rounding of a · v + b that no proof can tell from an error, in units of the last digit of its terms.
_ULPS = 64

# What needs no second look.
_SMALL = 1e-12

# Of a constant difference, the part by which it may vary.
_STEADY = 1e-6


def difference(before: list[Tensor], after: list[Tensor]) -> tuple[float, float]:
    """Return max|y − y₀| / max|y₀| and mean|y − y₀| / max|y₀|, the largest over lists of tensors.

    Infinite where shapes differ, or where one is NaN or infinite and the other isn't the same.
    """
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf"), float("inf")
    sizes = [_finite(tensor).abs().max().item() if tensor.numel() else 0.0 for tensor in before]
    floor = _FLOOR * max(sizes, default=0.0)
    maximum = mean = 0.0
    for y0, y, size in zip(before, after, sizes, strict=True):
        same = (y0 == y) | (y0.isnan() & y.isnan())
        apart = torch.where(same, 0.0, (y.double() - y0.double()).abs()).nan_to_num(
            nan=float("inf"), posinf=float("inf")
        )
        scale = max(size, floor) or 1.0
        if apart.numel():
            maximum = max(maximum, apart.max().item() / scale)
            mean = max(mean, apart.mean().item() / scale)
    return maximum, mean


def error_at(place: Place, before: Tensor | None, after: Tensor | None) -> float:
    """Return how far a value is from what its gauge says it is, relative to the largest of the place.

    Infinite if only one run comes by. Where the gauge magnifies a value that is little more than rounding,
    as behind a tiny gamma, what a · v + b itself loses is no error: 64 units of the last digit of a · v and
    of b, element by element.
    """
    if before is None or after is None:
        return 0.0 if before is after else float("inf")
    if not _fits(place, before):
        return 0.0  # it changes from position to position, of which there are others in this trial
    expected = expected_at(place, before, after)
    error = difference([expected], [after])[0]
    if error <= _SMALL or expected.shape != after.shape or not before.is_floating_point():
        return error
    scale, shift = (gauge.to(before.device) for gauge in (place.scale, place.shift))
    rounding = _ULPS * torch.finfo(before.dtype).eps * ((before * scale).abs() + shift.abs())
    is_near = expected.isfinite() & ((after - expected).abs() <= rounding)
    return difference([expected], [torch.where(is_near, expected, after)])[0]


def expected_at(place: Place, before: Tensor, after: Tensor) -> Tensor:
    """Return what a value is to be after the change, a · v + b; where it may be anything, what it is."""
    expected = before * place.scale.to(before.device) + place.shift.to(before.device)
    free = (place.scale.isnan() | place.shift.isnan()).to(before.device)
    return torch.where(free, after, expected) if free.any() and after.shape == expected.shape else expected


def apart_by_shift(place: Place, before: Tensor | None, after: Tensor | None) -> bool:
    """Return whether a value differs from what it is to be by a constant per channel (the second axis)."""
    if before is None or after is None or before.shape != after.shape or before.dim() < 2:
        return False
    apart = (after - expected_at(place, before, after)).transpose(0, 1).flatten(1)
    varies = (apart.amax(1) - apart.amin(1)).max() if apart.numel() else apart.new_zeros(())
    return bool(varies <= _STEADY * apart.abs().max())  # not so if any of it is NaN


def _fits(place: Place, before: Tensor) -> bool:
    sizes = zip(place.scale.shape, place.shift.shape, before.shape, strict=False)
    return place.scale.dim() == before.dim() and all({a, b} <= {1, size} for a, b, size in sizes)


def _finite(tensor: Tensor) -> Tensor:
    return tensor.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

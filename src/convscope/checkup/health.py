"""One row per batch norm call: its numbers, and some of its channels one by one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from convscope.checkup.judging.faults.gains import dead_by_gain, dead_on_data
from convscope.checkup.judging.residuals import Residuals, residuals
from convscope.checkup.observed import NormCall
from convscope.checkup.result import Channels, NormHealth

# Channels that a result holds one by one: of all layers together, and of one of them.
_ALL, _MOST, _LEAST = 2048, 256, 16
_DIGITS = 5


def rows_of(norms: Sequence[NormCall]) -> tuple[NormHealth, ...]:
    """Return a row for each batch norm call, in order."""
    room = min(_MOST, max(_LEAST, _ALL // max(1, len(norms))))
    return tuple(_row(norm, room) for norm in norms)


def _row(norm: NormCall, room: int) -> NormHealth:
    population, found, dead_C = norm.population, residuals(norm, norm.population), _dead(norm)
    mean_at = 0 if found is None else int(found.mean.abs().argmax())
    variance_at = 0 if found is None else int(found.variance.abs().argmax())
    gains = None if norm.gamma is None else norm.gamma.abs()
    return NormHealth(
        address=norm.address,
        path=norm.path,
        channels=norm.channels,
        frozen=norm.frozen,
        num_values=None if population is None else population.batch_values,
        effective_values=None if population is None else population.effective_values,
        momentum=norm.momentum,
        eps=norm.eps,
        num_batches_tracked=norm.num_batches_tracked,
        mean_residual=None if found is None else float(found.mean[mean_at].abs()),
        mean_error=None if found is None else float(found.mean_error[mean_at]),
        variance_residual=None if found is None else float(found.variance[variance_at].abs()),
        variance_error=None if found is None else float(found.variance_error[variance_at]),
        stale_channels=None if found is None else int(found.stale.sum()),
        dead_channels=None if dead_C is None else int(dead_C.sum()),
        gamma_range=None
        if gains is None
        else (float(gains.min()), float(gains.median()), float(gains.max())),
        single=_single(norm, found, dead_C, room),
    )


def _dead(norm: NormCall) -> Tensor | None:
    """Which channels are dead, by their gains or on the data; None if neither is known."""
    known = [dead_C for dead_C in (dead_by_gain(norm), dead_on_data(norm)) if dead_C is not None]
    return torch.stack(known).any(0) if known else None


def _single(norm: NormCall, found: Residuals | None, dead_C: Tensor | None, room: int) -> Channels:
    chosen = _chosen(norm.channels, found, dead_C, room)
    population, variance_C = norm.population, norm.running_variance
    scale_C = None if variance_C is None else (variance_C + norm.eps).clamp_min(0).sqrt()
    mean_error_C = None if found is None or scale_C is None else found.mean_error * scale_C

    def taken(values_C: Tensor | None) -> tuple[float, ...] | None:
        return None if values_C is None else tuple(_rounded(float(value)) for value in values_C[chosen])

    return Channels(
        number=tuple(chosen),
        mean=taken(None if population is None else population.mean),
        running_mean=taken(norm.running_mean),
        mean_error=taken(mean_error_C),
        variance=taken(None if population is None else population.variance),
        running_variance=taken(variance_C),
        variance_error=taken(None if found is None else found.variance_error),
        gamma=taken(norm.gamma),
        beta=taken(norm.beta),
        dead=None if dead_C is None else tuple(bool(dead) for dead in dead_C[chosen]),
    )


def _chosen(channels: int, found: Residuals | None, dead_C: Tensor | None, room: int) -> list[int]:
    """At most ``room`` channels: half of them dead or furthest off, the rest in even steps."""
    if channels <= room:
        return list(range(channels))
    telling: dict[int, None] = {}
    if dead_C is not None:
        telling.update(dict.fromkeys(dead_C.nonzero().flatten().tolist()))
    if found is not None:
        off_C = torch.maximum(found.mean.abs(), found.variance.abs()).nan_to_num(nan=torch.inf)
        telling.update(dict.fromkeys(off_C.argsort(descending=True).tolist()))
    first = list(telling)[: room // 2]
    even = torch.linspace(0, channels - 1, room - len(first)).round().long().tolist()
    return sorted({*first, *even})


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")

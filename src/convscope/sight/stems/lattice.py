"""Does a spectrum have peaks on the lattice of a stride: multiples of 1/s along either axis?

Zeiler and Fergus saw in the second layer's pictures "aliasing artifacts caused by the large stride 4". A
projection through a stride of s paints the first filters at places s pixels apart, so that a coarse pattern
comes again around every multiple of 1/s; where the filters don't hold it back, it shows.

The measure: energy at the lattice's frequencies over the median of the ring of 16 frequencies two bins away,
geometric mean over the lattice. A smooth spectrum has peaks by chance, and images have ridges along the axes;
so the same is measured at other frequencies, each lattice point replaced by one of its own kind (on the same
axis, or on none), 999 times, and the share of draws with as high a ratio is the p-value.

Legend: N images, U units, H and W the map, a multiple of the period.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Period = tuple[int, int]
DRAWS = 999
LEAST = 5
"""Bins between two lattice points, at least: the ring reaches two bins from either."""


@dataclass(frozen=True)
class Peaks:
    """The lattice's ratio and how rare it is; both None with a reason where they can't be had."""

    ratio: float | None
    p_value: float | None
    reason: str = ""


def lattice_peaks(maps_NUHW: Float[Tensor, "n u h w"], period: Period, *, windowed: bool = True) -> Peaks:
    """Return how far the lattice of a period stands out of the spectrum of maps.

    Args:
        maps_NUHW: every channel of every image counts the same.
        period: (vertical, horizontal), in positions; 1: no lattice along that axis.
        windowed: with a Hann window; patches that end by themselves need none.

    Example:
        >>> noise = torch.randn(4, 8, 40, 40, generator=torch.Generator().manual_seed(0))
        >>> planted = noise + 0.5 * (torch.arange(40) % 4 == 0)
        >>> found = lattice_peaks(planted, (1, 4))
        >>> found.ratio > 2, found.p_value < 0.01
        (True, True)
    """
    if max(period) == 1:
        return Peaks(None, None, "the first layer has no stride")
    height, width = maps_NUHW.shape[2:]
    size = [length // step * step for length, step in zip((height, width), period)]
    if any(length < LEAST * step for length, step in zip(size, period) if step > 1) or min(size) < LEAST:
        return Peaks(
            None, None, f"maps of {height}×{width} are too small for a period of {period[0]}×{period[1]}"
        )
    logs = _log_ratios(maps_NUHW[:, :, : size[0], : size[1]], windowed)
    if logs is None:
        return Peaks(None, None, "no energy")
    lattice, kinds, others = _points(size, period)
    observed = float(logs[lattice[:, 0], lattice[:, 1]].mean())
    drawn = _null(logs, kinds, others)
    if drawn is None:
        return Peaks(None, None, f"maps of {height}×{width} leave nothing to compare with")
    beaten = int((drawn >= observed).sum())
    return Peaks(math.exp(observed), (1 + beaten) / (1 + len(drawn)))


def _log_ratios(maps: Tensor, windowed: bool) -> Tensor | None:
    """Of every frequency: log of its energy over the median of its ring."""
    maps = maps.double().cpu()
    maps = maps - maps.mean((2, 3), keepdim=True)
    if windowed:
        window = [torch.hann_window(length, dtype=torch.float64) for length in maps.shape[2:]]
        maps = maps * window[0][:, None] * window[1]
    power = torch.fft.fft2(maps).abs().square().flatten(0, 1)
    whole = power.sum((1, 2), keepdim=True)
    kept = power[whole.flatten() > 0] / whole[whole.flatten() > 0]
    if not len(kept):
        return None
    mean = kept.mean(0).clamp(min=1e-300)
    ring = [
        mean.roll((down, across), (0, 1))
        for down in range(-2, 3)
        for across in range(-2, 3)
        if max(abs(down), abs(across)) == 2
    ]
    ratios: Tensor = (mean / torch.stack(ring).median(0).values).log()
    return ratios


def _points(size: list[int], period: Period) -> tuple[Tensor, list[int], list[Tensor]]:
    """The lattice's bins, the kind of each, and for each kind the other bins: on an axis, or on none.

    Frequencies whose mirror image is there already, and bins near the origin or the lattice, are left out.
    """
    rows, columns = torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")
    spacing = [length // step for length, step in zip(size, period)]
    on_rows, on_columns = (
        index % step == 0 if jump > 1 else index == 0
        for index, step, jump in zip((rows, columns), spacing, period)
    )
    near_rows, near_columns = (
        _distance(index, step if jump > 1 else length) <= 1
        for index, step, jump, length in zip((rows, columns), spacing, period, size)
    )
    half = (columns <= size[1] // 2) & ~(((columns == 0) | (2 * columns == size[1])) & (2 * rows > size[0]))
    kind = torch.where(rows == 0, 1, torch.where(columns == 0, 2, 0))
    is_lattice = on_rows & on_columns & half & ((rows > 0) | (columns > 0))
    # The ring of a frequency close to the origin would hold the mean, which is taken away.
    at_origin = (_distance(rows, size[0]) <= 2) & (_distance(columns, size[1]) <= 2)
    is_other = half & ~(near_rows & near_columns) & ~at_origin
    lattice = is_lattice.nonzero()
    kinds = [int(kind[row, column]) for row, column in lattice.tolist()]
    return lattice, kinds, [(is_other & (kind == each)).nonzero() for each in range(3)]


def _distance(index: Tensor, spacing: int) -> Tensor:
    return torch.minimum(index % spacing, (-index) % spacing)


def _null(logs: Tensor, kinds: list[int], others: list[Tensor]) -> Tensor | None:
    random = torch.Generator().manual_seed(0)
    drawn = torch.zeros(DRAWS, dtype=torch.float64)
    for kind in kinds:
        places = others[kind]
        if not len(places):
            return None
        chosen = places[torch.randint(len(places), (DRAWS,), generator=random)]
        drawn += logs[chosen[:, 0], chosen[:, 1]]
    return drawn / len(kinds)

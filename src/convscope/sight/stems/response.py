"""What filters pass by themselves: their frequency response, exact, without any image.

White noise has the same energy at all frequencies, so the response's energy is that of the filter's answer
to it. Frequencies are in cycles per pixel of the filter's input.

Legend: O filters, C their input channels, H and W the kernel.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.stems.spectrum import Stride

GRID = 128
"""Points of the Fourier transform along each axis: peaks are found to 1/256 cycles per pixel."""
RINGS = 16
"""Rings of equal width between 0 and 0.5 cycles per pixel; one more holds the square's corners."""
_RAY = 257
_CHUNK = 32
_COLOURS = (
    ((1 / math.sqrt(3),) * 3,),
    ((1 / math.sqrt(2), -1 / math.sqrt(2), 0.0), (1 / math.sqrt(6), 1 / math.sqrt(6), -2 / math.sqrt(6))),
)


@dataclass(frozen=True)
class Responses:
    """The frequency responses of all filters.

    Attributes:
        luminance: (o, rings + 1) each filter's energy by radius, as shares of its whole energy: what it
            answers to grey, (R + G + B) / √3.
        opponent: the same for colour, (R − G) / √2 and (R + G − 2B) / √6 together; None for filters of other
            than three channels, of which all then count as luminance.
        peak: (o,) radius of the frequency with the largest response; NaN for a filter of zeros.
        peak_axes: (o, 2) its |f_y| and |f_x|.
        bandwidth: (o,) octaves between the frequencies, on the line through 0 and the peak, at which the
            response's energy has fallen to half; NaN where it hasn't fallen to half at 0 (a low-pass).
    """

    luminance: Float[Tensor, "o r"]
    opponent: Float[Tensor, "o r"] | None
    peak: Float[Tensor, " o"]
    peak_axes: Float[Tensor, "o 2"]
    bandwidth: Float[Tensor, " o"]

    @property
    def radial(self) -> Float[Tensor, "o r"]:
        """(o, rings + 1) energy by radius, colours together."""
        return self.luminance if self.opponent is None else self.luminance + self.opponent


def share_beyond(
    weight_OCHW: Float[Tensor, "o c h w"], stride: Stride, dilation: Stride = (1, 1)
) -> Float[Tensor, " o"]:
    r"""Return the share of each filter's energy beyond a stride's Nyquist frequency, for white input; exact.

    With r the filter's autocorrelation, the energy in the band is the sum over lags of
    r(k, l) · b_y(k) · b_x(l), where b(k) = sin(π k / s) / (π k), which is 1/s at k = 0. NaN for zeros.

    Example:
        >>> share_beyond(torch.ones(1, 1, 1, 1), (2, 2)).tolist()
        [0.75]
    """
    height, width = weight_OCHW.shape[2:]
    size = (2 * height - 1, 2 * width - 1)
    bands = [
        _in_band(length, step, spread) for length, step, spread in zip((height, width), stride, dilation)
    ]
    shares = []
    for part in torch.split(weight_OCHW.detach().double().cpu(), _CHUNK):
        power = torch.fft.rfft2(part, size).abs().square().sum(1)
        lags = torch.fft.irfft2(power, size)
        within = torch.einsum("okl,k,l->o", lags, *bands)
        shares.append(1 - within / lags[:, 0, 0])
    return torch.cat(shares).clamp(min=0)


def responses(weight_OCHW: Float[Tensor, "o c h w"]) -> Responses:
    """Return the filters' frequency responses.

    Example:
        >>> found = responses(torch.ones(1, 1, 5, 5))
        >>> found.peak.tolist(), found.bandwidth.isnan().tolist(), round(float(found.radial.sum()), 6)
        ([0.0], [True], 1.0)
    """
    parts = [_responses(part) for part in torch.split(weight_OCHW.detach().double().cpu(), _CHUNK)]
    colours = [part.opponent for part in parts if part.opponent is not None]
    return Responses(
        luminance=torch.cat([part.luminance for part in parts]),
        opponent=torch.cat(colours) if colours else None,
        peak=torch.cat([part.peak for part in parts]),
        peak_axes=torch.cat([part.peak_axes for part in parts]),
        bandwidth=torch.cat([part.bandwidth for part in parts]),
    )


def _in_band(length: int, stride: int, dilation: int) -> Tensor:
    """What a pass-band does to lags 0 … length − 1 and then −(length − 1) … −1."""
    lags = torch.cat([torch.arange(length), torch.arange(1 - length, 0)]).double() * dilation
    return torch.sinc(lags / stride) / stride


def _responses(weight: Tensor) -> Responses:
    by_colour = [
        torch.fft.rfft2(torch.einsum("kc,ochw->okhw", torch.tensor(axes).double(), weight), _grid(weight))
        for axes in (_COLOURS if weight.shape[1] == 3 else ())
    ] or [torch.fft.rfft2(weight, _grid(weight))]
    powers = [transformed.abs().square().sum(1) for transformed in by_colour]
    rings, doubled, rows, columns = _rings(_grid(weight))
    whole = torch.stack(powers).sum(0)
    energy = (whole * doubled).sum((1, 2))
    radial = [
        torch.zeros(len(weight), RINGS + 1, dtype=torch.float64).index_add_(
            1, rings, (each * doubled).flatten(1)
        )
        / energy[:, None]
        for each in powers
    ]
    highest = whole.flatten(1).argmax(1)
    # Signed, for the direction of the line through the peak.
    peak_y, peak_x = rows[highest // whole.shape[2]], columns[highest % whole.shape[2]]
    silent = energy == 0
    peak = torch.hypot(peak_y, peak_x).masked_fill(silent, torch.nan)
    return Responses(
        luminance=radial[0],
        opponent=radial[1] if len(radial) > 1 else None,
        peak=peak,
        peak_axes=torch.stack([peak_y.abs(), peak_x.abs()], 1),
        bandwidth=_bandwidths(weight, peak_y, peak_x).masked_fill(silent, torch.nan),
    )


def _grid(weight: Tensor) -> tuple[int, int]:
    height, width = (max(GRID, 4 * length) for length in weight.shape[2:])
    return height, width + width % 2


def _rings(grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each frequency's ring, how often it counts, and the axes."""
    rows, columns = (
        function(length, dtype=torch.float64)
        for function, length in zip((torch.fft.fftfreq, torch.fft.rfftfreq), grid)
    )
    radius = torch.hypot(rows[:, None], columns)
    doubled = torch.full_like(columns, 2.0)
    doubled[0] = doubled[-1] = 1
    # A frequency on the edge between two rings belongs to the lower one.
    rings = (radius * 2 * RINGS - 1e-9).ceil().sub(1).clamp(0, RINGS).long()
    return rings.flatten(), doubled, rows, columns


def _bandwidths(weight: Tensor, peak_y: Tensor, peak_x: Tensor) -> Tensor:
    radius = torch.hypot(peak_y, peak_x)
    unit = torch.stack([peak_y, peak_x], 1) / radius.clamp(min=1e-12)[:, None]
    furthest = 0.5 / unit.abs().amax(1).clamp(min=0.5)
    steps = torch.linspace(0, 1, _RAY, dtype=torch.float64)
    along = furthest[:, None] * steps  # (o, ray)
    y, x = (torch.arange(length).double() for length in weight.shape[2:])
    down, across = (
        torch.exp(-2j * torch.pi * (along * unit[:, axis, None])[..., None] * place)
        for axis, place in enumerate((y, x))
    )
    answer = torch.einsum("ochw,orh,orw->ocr", weight.to(torch.complex128), down, across)
    power = answer.abs().square().sum(1)
    nearest = (along - radius[:, None]).abs().argmin(1)
    widths = [_octaves(line, along[row], int(nearest[row])) for row, line in enumerate(power)]
    return torch.tensor(widths, dtype=torch.float64)


def _octaves(power: Tensor, frequencies: Tensor, peak: int) -> float:
    """The half-power width around a peak; up to the last frequency where it doesn't fall so far."""
    is_low = power <= power[peak] / 2
    below = is_low[:peak].nonzero()
    if not len(below):
        return math.nan
    above = is_low[peak:].nonzero()
    low = _crossing(power, frequencies, int(below[-1]), power[peak] / 2)
    high = (
        _crossing(power, frequencies, peak + int(above[0]) - 1, power[peak] / 2)
        if len(above)
        else float(frequencies[-1])
    )
    return math.log2(high / low) if low > 0 else math.nan


def _crossing(power: Tensor, frequencies: Tensor, left: int, level: Tensor) -> float:
    """Where the line between a point and the next one has the level."""
    step = (level - power[left]) / (power[left + 1] - power[left])
    return float(frequencies[left] + step * (frequencies[left + 1] - frequencies[left]))

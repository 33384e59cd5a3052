"""Do the filters of a first layer cover all frequencies, or is there a gap in the middle?

Zeiler and Fergus saw in AlexNet's filters "a mix of extremely high and low frequency information, with little
coverage of the mid frequencies". Here that is a number, from the energy by octave of all filters, each of
which counts once, compared with a bank which has none.

The gap: with r a band's share of the energy, divided by its share in a bank of Gabor filters of the same
kernel whose frequencies are evenly spaced in octaves, the index is 1 − r_mid / min(r_low, r_high), and 0
where that is negative. Low is below 1/8 cycles per pixel, mid up to 1/4, high above. The smaller of the two
extremes stands below the line since a bank of nothing but edges, or of nothing but blobs, is one-sided, not
gapped: the gap is missing what both of its neighbours have. 0.5 means that the middle has half of what it
should have beside the weaker of its neighbours. Random filters, whose energy grows with a band's area, have
none.

Limits: a kernel of k pixels tells frequencies apart by 1/k; below 7 pixels there are no three octaves, and no
index. Frequencies are in cycles per pixel, so a gap says nothing about images of another resolution.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.stems.diagnosis import Coverage, Octave
from convscope.sight.stems.response import RINGS, Responses, responses

SMALLEST_KERNEL = 7
_EDGES = (
    0.0,
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    math.sqrt(1 / 2),
)  # the last: the corners of the square of frequencies
_ORIENTATIONS = 8
_HALF_OCTAVES = 6


def coverage(found: Responses, counts: Float[Tensor, " o"], kernel: tuple[int, int]) -> Coverage:
    """Return the filters' energy by octave, and the gap in the middle.

    Args:
        found: the filters' responses.
        counts: (o,) whether a filter counts: those without weights don't.
        kernel: (height, width).
    """
    kept = found.radial[counts]
    bands = _octaves(kept.mean(0)) if len(kept) else torch.zeros(len(_EDGES) - 1).double()
    reference, random = _octaves(_reference(kernel)), _random()
    colour = None if found.opponent is None or not len(kept) else float(found.opponent[counts].sum(1).mean())
    octaves = tuple(
        Octave(low, high, *(float(each[index]) for each in (bands, reference, random)))
        for index, (low, high) in enumerate(pairwise(_EDGES))
    )
    gap = _gap(bands, reference) if min(kernel) >= SMALLEST_KERNEL and len(kept) else None
    return Coverage(octaves, gap, colour)


def gabor(
    frequency: float, orientation: float, phase: float, kernel: tuple[int, int], octaves: float = 1.0
) -> Float[Tensor, "h w"]:
    """Return a Gabor filter: a grating under a round Gaussian, of a half-power bandwidth in octaves.

    Args:
        frequency: in cycles per pixel.
        orientation: in radians; the grating's wave runs along its (sin, cos), y first.
        phase: in radians.
        kernel: (height, width).
        octaves: between the two frequencies at which the energy has fallen to half: the Gaussian's σ is
            √(ln 2) / (2π δ) with δ = frequency · (2^octaves − 1) / (2^octaves + 1).

    Source: Daugman 1985, J. Opt. Soc. Am. A 2, 1160, for the Gabor filter in two dimensions.
    """
    ratio = 2**octaves
    sigma = math.sqrt(math.log(2)) / (2 * math.pi * frequency * (ratio - 1) / (ratio + 1))
    y, x = (torch.arange(length).double() - (length - 1) / 2 for length in kernel)
    along = y[:, None] * math.sin(orientation) + x * math.cos(orientation)
    envelope = torch.exp(-(y[:, None].square() + x.square()) / (2 * sigma**2))
    return envelope * torch.cos(2 * math.pi * frequency * along + phase)


def _reference(kernel: tuple[int, int]) -> Tensor:
    """Energy by ring of Gabor filters, two an octave from 0.4 cycles per pixel down, in all directions."""
    bank = [
        gabor(0.4 * 2 ** (-half / 2), math.pi * turn / _ORIENTATIONS, phase, kernel)
        for half in range(_HALF_OCTAVES)
        for turn in range(_ORIENTATIONS)
        for phase in (0.0, math.pi / 2)
    ]
    return responses(torch.stack(bank)[:, None]).radial.mean(0)


def _random() -> Tensor:
    """What filters of independent random weights have: each band's area in the square of frequencies."""
    return _octaves(responses(torch.ones(1, 1, 1, 1)).radial[0])


def _octaves(rings: Tensor) -> Tensor:
    """The rings' energy by octave; the square's corners belong to the highest."""
    ends = [round(edge * 2 * RINGS) for edge in _EDGES]
    ends[-1] = RINGS + 1
    return torch.stack([rings[start:end].sum() for start, end in pairwise(ends)])


def _gap(bands: Tensor, reference: Tensor) -> float:
    low, high = bands[:3].sum() / reference[:3].sum(), bands[4] / reference[4]
    mid = bands[3] / reference[3]
    least = torch.minimum(low, high)
    return float((1 - mid / least).clamp(min=0)) if least > 0 else 0.0

"""What a diagnosis of the first layer is: its filters, their frequencies, other designs, and all strides."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.sight.stems.strides import Aliasing as Aliasing
from convscope.sight.stems.strides import Lattice as Lattice
from convscope.sight.stems.strides import LayerShift as LayerShift
from convscope.sight.stems.strides import Shifts as Shifts
from convscope.sight.stems.strides import Spread as Spread


@dataclass(frozen=True)
class Filter:
    """One filter of the first convolution.

    Attributes:
        index: the channel.
        weight_rms: root mean square of its weights.
        dominance: its strength divided by the median of all filters.
        aliased_share: share of its response's energy, without the mean, beyond the Nyquist frequency of
            its own stride; that part folds into false frequencies.
        maximum: its unit's largest activation, after normalisation and activation function.
        dead: that activation is positive nowhere in the data; without an activation function: it is the same
            everywhere.
        strength: ``weight_rms`` times the scale that follows, where that is folded in (``Stem.is_folded``).
        weight_dead: its strength is under a thousandth of the median's.
        activated_share: ``aliased_share`` behind normalisation and activation function.
        filter_share: the same share for white input: the filter alone.
        peak_frequency: where it answers most, in cycles per pixel.
        bandwidth: in octaves, at half power, along the line through the peak; None for a low-pass.
        luminance, opponent: its energy by radius (17 rings, each 1/32 cycles per pixel wide, the last one for
            what lies beyond 1/2), as shares; grey and colours apart, colours None without three channels.
    """

    index: int
    weight_rms: float
    dominance: float
    aliased_share: float
    maximum: float
    dead: bool
    strength: float
    weight_dead: bool
    activated_share: float | None
    filter_share: float
    peak_frequency: float
    bandwidth: float | None
    luminance: tuple[float, ...]
    opponent: tuple[float, ...] | None


@dataclass(frozen=True)
class WhatIf:
    """The same filters with another stride, or with fewer of their pixels.

    Attributes:
        stride: (vertical, horizontal).
        aliased_share: median over the filters; None if none of them responds, or if the images are too small.
        kernel: (height, width): the middle of the filters; no weight changes, those outside are cut off.
        kept_energy: share of the squared weights inside that middle; 1 for the filters as they are.
        covered: share of the filters whose peak frequency the stride still tells from others.
        map_size: (height, width) of the output.
        macs_ratio: multiply-accumulates of the layer, relative to those as it is.
    """

    stride: tuple[int, int]
    aliased_share: float | None
    kernel: tuple[int, int]
    kept_energy: float
    covered: float
    map_size: tuple[int, int]
    macs_ratio: float


@dataclass(frozen=True)
class Octave:
    """One octave of spatial frequency.

    Attributes:
        low, high: in cycles per pixel; the highest ends in the corners of the square, at √½.
        share: of the filters' energy, each filter counting once.
        reference: that of a bank of Gabor filters of the same kernel, evenly spaced in octaves.
        random: that of random weights: the octave's area.
    """

    low: float
    high: float
    share: float
    reference: float
    random: float


@dataclass(frozen=True)
class Coverage:
    """Which frequencies the filters answer to.

    Attributes:
        octaves: from low to high.
        gap: mid-frequency gap index, 0 … 1 (:mod:`convscope.sight.stems.coverage`); None for kernels under 7
            pixels.
        colour: share of the energy that answers to opponent colours; None without three channels.
    """

    octaves: tuple[Octave, ...]
    gap: float | None
    colour: float | None


@dataclass(frozen=True)
class Stem(Result):
    """The first convolution of a network, looked at as Zeiler and Fergus did, and what follows from it.

    Attributes:
        grid: the filters as one picture, ``(height, width, 3)`` with values from 0 to 1; every filter is
            shown as 0.5 + w / (2 max|w|) with its own maximum.
        name: the convolution's module path, or its operator's address.
        address, unit_address: of the convolution, and of the operator whose output holds its units.
        kernel, stride: (vertical, horizontal), in pixels.
        num_images: how many images the activations rest on.
        num_spectra: how many of them, evenly spaced, the shares of energy rest on.
        input_rms, input_range: root mean square and largest size of the images' pixels as the network gets
            them.
        radius: ZF's radius of 0.1 for a filter's RMS, which was meant for pixels in [−128, 128], for pixels
            in ± ``input_range``; None for black images, and where a group, layer or instance norm undoes the
            size of the weights.
        is_folded: whether a scale that follows the convolution (gamma / sqrt(var + eps) of a batch norm) is
            folded into the filters' strengths.
        aliased_share: median of the filters' shares (filters without any response left out); None if all are.
        activated_share: the same behind normalisation and activation; None without activation.
        filter_share: the same for white input.
        filters: in order of their channels.
        duplicates: groups of filters with |cosine| > 0.95.
        coverage: of the frequencies.
        what_if: the shares with strides 1, 2 and 4 and its own.
        smaller: with smaller kernels and these strides.
        operators: all strided convolutions and pools, in order.
        left_out: what subsamples in other ways, and layers that couldn't be compared, with the reasons.
        shifts: how layers and scores follow shifts of the image.
        lattices: of the second convolution; empty without one.
        findings: about filters, aliasing and shifts.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"grid"})

    grid: Float[Tensor, "height width 3"]
    name: str
    address: str
    unit_address: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    num_images: int
    num_spectra: int
    input_rms: float
    input_range: float
    radius: float | None
    is_folded: bool
    aliased_share: float | None
    activated_share: float | None
    filter_share: float | None
    filters: tuple[Filter, ...]
    duplicates: tuple[tuple[int, ...], ...]
    coverage: Coverage
    what_if: tuple[WhatIf, ...]
    smaller: tuple[WhatIf, ...]
    operators: tuple[Aliasing, ...]
    left_out: tuple[str, ...]
    shifts: Shifts
    lattices: tuple[Lattice, ...]
    findings: tuple[Finding, ...]

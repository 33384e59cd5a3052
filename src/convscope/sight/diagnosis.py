"""What a diagnosis of the first convolution is: ZF's look at the filters, as numbers."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from convscope.core.finding import Finding
from convscope.core.result import Result


@dataclass(frozen=True)
class Filter:
    """One filter of the first convolution.

    Attributes:
        index: the channel.
        weight_rms: root mean square of its weights.
        dominance: ``weight_rms`` divided by the median of all filters.
        aliased_share: share of its response's energy, without the mean, beyond the Nyquist frequency of
            its own stride; that part folds into false frequencies.
        maximum: its unit's largest activation, after normalisation and activation function.
        dead: that activation is positive nowhere in the data.
    """

    index: int
    weight_rms: float
    dominance: float
    aliased_share: float
    maximum: float
    dead: bool


@dataclass(frozen=True)
class WhatIf:
    """The same filters with another stride.

    Attributes:
        stride: (vertical, horizontal).
        aliased_share: median over the filters; None if none of them responds.
    """

    stride: tuple[int, int]
    aliased_share: float | None


@dataclass(frozen=True)
class Stem(Result):
    """The first convolution of a network, looked at as Zeiler and Fergus did.

    Attributes:
        grid: the filters as one picture, ``(height, width, 3)`` with values from 0 to 1; every filter is
            shown as 0.5 + w / (2 max|w|) with its own maximum.
        name: the convolution's module path, or its operator's address.
        address, unit_address: of the convolution, and of the operator whose output holds its units.
        kernel, stride: (vertical, horizontal), in pixels.
        num_images: how many images the activations rest on.
        num_spectra: how many of them, evenly spaced, the shares of energy rest on.
        input_rms: root mean square of the images' pixels as the network gets them; ZF's radius of 0.1 for
            a filter's RMS was meant for pixels in [−128, 128].
        aliased_share: median of the filters' shares (filters without any response left out); None if all are.
        filters: in order of their channels.
        what_if: the shares with other strides.
        findings: dead, weak and dominant filters, aliasing.
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
    aliased_share: float | None
    filters: tuple[Filter, ...]
    what_if: tuple[WhatIf, ...]
    findings: tuple[Finding, ...]

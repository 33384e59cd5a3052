"""What a correspondence analysis says: distances between signs, with intervals, a verdict per layer."""

from dataclasses import dataclass
from typing import Literal

from convscope.core.finding import Finding
from convscope.core.result import Result

Verdict = Literal["consistent", "undecided", "inconsistent", "not measured"]
"""``consistent``: masking the part changes the layer more alike from image to image than masking random
patches does, by a 95 % interval; ``inconsistent``: less alike; ``undecided``: the interval holds 0."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs of images, and how far chance can move it.

    Attributes:
        value: the mean.
        standard_error: by the jackknife over images; None with fewer than three.
        low, high: 95 % interval, by Student's t with one degree of freedom less than images.
    """

    value: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Consistency:
    """How alike the changes are that one kind of mask makes in different images.

    Attributes:
        delta: Zeiler and Fergus's Δ: mean over pairs of the share of elements whose signs differ.
        agreement: Cohen's κ of the signs, 1 − share / chance, mean over pairs: 1 for equal signs, 0 for
            independent ones; what many zeros share by chance doesn't count.
        chance: mean Δ of pairs with the same numbers of each sign, but independent.
        opposed: of the elements that change in both images, the share that change in opposite ways; None
            if there are none.
        changed: mean share of the elements that a mask changes at all.
        num_pairs: pairs of images.
        pair_spread: standard deviation of the distances over pairs, which aren't independent; what a table
            of Δ ± spread shows.
        draw_spread: standard deviation of Δ over draws of random patches; None for a part.
    """

    delta: Estimate
    agreement: Estimate
    chance: float
    opposed: float | None
    changed: float
    num_pairs: int
    pair_spread: float
    draw_spread: float | None = None


@dataclass(frozen=True)
class PartRow:
    """A part beside random patches of its sizes, in one layer.

    Attributes:
        part: its name.
        num_images: images in which it is marked and masking it changes the layer.
        unchanged: images in which masking it changes nothing in the layer; they aren't compared.
        here: for the part; None if fewer than two images are left.
        random: for random patches in the same images; None if that can't be measured.
        difference: Δ of random patches less Δ of the part, paired: positive if the part is more alike.
        agreement_gain: κ of the part less κ of random patches, paired.
        verdict: by ``difference``.
        reason: why it wasn't measured or decided; else empty.
    """

    part: str
    num_images: int
    unchanged: tuple[int, ...]
    here: Consistency | None
    random: Consistency | None
    difference: Estimate | None
    agreement_gain: Estimate | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class CorrespondingLayer:
    """One layer.

    Attributes:
        name: as asked for; the path of a convolution means its units after normalisation and activation.
        address: where the features were read.
        shape: of one image's features.
        parts: a row for each part.
        difference: mean over the parts of random patches' Δ less theirs.
        verdict: by ``difference``.
    """

    name: str
    address: str
    shape: tuple[int, ...]
    parts: tuple[PartRow, ...]
    difference: Estimate | None
    verdict: Verdict


@dataclass(frozen=True)
class Correspondence(Result):
    """Whether a network establishes correspondence between the same parts in different images.

    Attributes:
        num_images: images read.
        unread: indices of marked images that couldn't be read.
        parts: names of the parts.
        draws: draws of random patches, each with a place for every image.
        placement: of random patches; see :class:`~convscope.sight.corresponding.marks.Masking`.
        seed: of the draws.
        fill: what masked pixels become.
        layers: in the order asked for, or of execution.
        left_out: convolutions whose channels aren't maps over the image, with the reasons.
        findings: what should be known before the verdicts are believed.
    """

    num_images: int
    unread: tuple[int, ...]
    parts: tuple[str, ...]
    draws: int
    placement: str
    seed: int
    fill: tuple[float, ...]
    layers: tuple[CorrespondingLayer, ...]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]


def verdict_on(difference: Estimate | None) -> Verdict:
    """Return the verdict that an interval allows."""
    if difference is None:
        return "not measured"
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "undecided"
    return "consistent" if difference.low > 0 else "inconsistent"

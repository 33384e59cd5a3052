"""Findings about strides: energy folded into false frequencies, lattices, scores that change with a shift."""

import math

from convscope.core.finding import Evidence, Finding
from convscope.sight.stems.diagnosis import Stem
from convscope.sight.stems.filter_symptoms import SOURCE
from convscope.sight.stems.strides import Aliasing

ALIASED = 0.25
"""Half of the filters lose more: random filters on images with 1/f spectra lose 0.40 with 11×11 and stride 4,
0.14 with 7×7 and stride 2 (the two stems between which Zeiler and Fergus chose)."""
BEHIND = 0.5
"""Behind the stem a map is no image but has its own frequencies, and trained networks rely on some."""
RATIO, P_VALUE = 2.0, 0.01
"""A lattice has twice the energy around it, and 99 of 100 other sets of frequencies have less."""
CONSISTENT = 0.78
"""AlexNet's, the lowest that Zhang (2019) reports for networks trained on ImageNet."""
ERRORS = 3
"""Standard errors below it: EfficientNet-Lite0 has 0.60 to 0.88 on 30 crops of photographs that aren't
ImageNet's."""
_ZHANG = "Zhang 2019 (arXiv 1904.11486)"


def aliased(stem: Stem) -> Finding | None:
    """The first convolution's stride is too large for its filters."""
    if stem.aliased_share is None or stem.aliased_share <= ALIASED:
        return None
    what_if = [
        (_times(what.stride), what.aliased_share) for what in stem.what_if if what.aliased_share is not None
    ]
    others = ", ".join(f"stride {stride}: {share:.2f}" for stride, share in what_if)
    own = next((each for each in stem.operators if each.address == stem.address), None)
    return Finding(
        "aliased-stem", "warning", stem.address,
        (
            Evidence(
                "energy beyond the Nyquist frequency", stem.aliased_share, "1",
                f"median filter, {stem.num_spectra} images, dense response without its mean",
            ),
            *(Evidence(f"with stride {stride}", share, "1", "same filters") for stride, share in what_if),
            *_with_blur(own),
        ),
        f"half of the filters lose more than {stem.aliased_share:.0%} of their energy to false frequencies "
        f"at stride {_times(stem.stride)} (the same filters with {others})",
        f"use a smaller stride and smaller filters, or {_blur(own)} before subsampling",
        SOURCE + "section 4.1: 11×11 with stride 4 became 7×7 with stride 2",
        effect=stem.aliased_share / ALIASED,
    )  # fmt: skip


def aliased_behind(stem: Stem) -> Finding | None:
    """Strided operators behind the first convolution that fold more than half of their energy."""
    found = [
        each for each in stem.operators
        if each.address != stem.address and each.share and each.share.median > BEHIND
    ]  # fmt: skip
    if not found:
        return None
    worst = max(found, key=lambda each: each.share.median if each.share else 0.0)
    share = worst.share.median if worst.share else 0.0
    return Finding(
        "aliased-operator", "advice", worst.address,
        (
            Evidence("energy beyond the Nyquist frequency", share, "1", "median channel, dense map"),
            Evidence("such operators", len(found), "operators", f"of {len(stem.operators)} with a stride"),
            *_with_blur(worst),
        ),
        f"{len(found)} of {len(stem.operators)} strided operators fold over half of their energy into false "
        f"frequencies; {worst.name} {share:.0%}",
        f"{_blur(worst)} before subsampling, at {', '.join(each.name for each in found[:6])}",
        _ZHANG,
        effect=share / BEHIND,
    )  # fmt: skip


def lattice(stem: Stem) -> Finding | None:
    """The second layer shows the first one's stride."""
    found = [
        each for each in stem.lattices
        if each.ratio is not None and each.p_value is not None
        and each.ratio > RATIO and each.p_value <= P_VALUE
    ]  # fmt: skip
    if not found:
        return None
    worst = max(found, key=lambda each: each.ratio or 0.0)
    period = _times(worst.period)
    return Finding(
        "lattice-artifacts", "advice", worst.address,
        tuple(
            Evidence(f"lattice over surroundings, {each.of}", each.ratio or 0, "×", f"p = {each.p_value:.3g}")
            for each in found
        ),
        f"the second convolution's {worst.of} have {worst.ratio:.2g} times the energy of their surroundings "
        f"at multiples of 1/period for the period {period}, the stride before them",
        "use a smaller stride in the first layers, or blur before subsampling",
        SOURCE + "section 4.1: “aliasing artifacts caused by the large stride 4”",
        effect=(worst.ratio or 0.0) / RATIO,
    )  # fmt: skip


def unsteady(stem: Stem) -> Finding | None:
    """Scores that change with the crop, by more than chance."""
    shifts = stem.shifts
    if shifts.top1_crops is None:
        return None
    error = math.sqrt(CONSISTENT * (1 - CONSISTENT) / shifts.num_images)
    if shifts.top1_crops + ERRORS * error >= CONSISTENT:
        return None
    return Finding(
        "unsteady-scores", "advice", "self#1",
        (
            Evidence("share of images whose two crops agree", shifts.top1_crops, "1",
                     f"{shifts.num_images} images, up to {shifts.furthest} pixels apart"),
            *(() if shifts.top1_pixel is None else
              (Evidence("share that agrees one pixel apart", shifts.top1_pixel, "1"),)),
        ),
        f"two crops of an image, up to {shifts.furthest} pixels apart, have the same highest score in only "
        f"{shifts.top1_crops:.0%} of {shifts.num_images} images (AlexNet's on ImageNet: {CONSISTENT:.0%})",
        "make sure that the images are such as it was trained on; then blur before subsampling, train with "
        "shifted crops, or on more data",
        _ZHANG,
    )  # fmt: skip


def _with_blur(operator: Aliasing | None) -> tuple[Evidence, ...]:
    if operator is None or operator.blurred is None:
        return ()
    return (Evidence("with that blur", operator.blurred.median, "1", "same dense maps"),)


def _blur(operator: Aliasing | None) -> str:
    """The blur that was measured, in words: it reaches along an axis as far as the stride there."""
    strides = operator.stride if operator else (2, 2)
    named = [(axis, _taps(step)) for axis, step in zip(("down", "across"), strides) if step > 1]
    if len({taps for _, taps in named}) == 1 and len(named) == 2:
        return f"a blur by {named[0][1]} along each axis"
    return "a blur by " + " and ".join(f"{taps} {axis} the image" for axis, taps in named)


def _taps(step: int) -> str:
    row = [math.comb(2 * step - 2, tap) for tap in range(2 * step - 1)]
    return f"[{' '.join(map(str, row))}] / {sum(row)}"


def _times(sizes: tuple[int, int]) -> str:
    return "×".join(map(str, sizes))

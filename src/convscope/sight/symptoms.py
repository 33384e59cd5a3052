"""Findings about the first convolution."""

from dataclasses import replace

from convscope.core.finding import Evidence, Finding
from convscope.sight.diagnosis import Stem

ALIASED = 0.25
DOMINANT = 3.0
WEAK = 0.1
_SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), "


def symptoms_of(stem: Stem) -> Stem:
    """Return a diagnosis with its findings.

    The thresholds are convscope's: half of the filters with more than a quarter of their energy beyond the
    Nyquist frequency (random filters on natural-image-like noise have 0.40 for 11×11 with stride 4, 0.14 for
    7×7 with stride 2); an RMS of over 3 times or under a tenth of the median filter's.
    """
    found = (_dead(stem), _dominant(stem), _weak(stem), _aliased(stem))
    return replace(stem, findings=tuple(finding for finding in found if finding is not None))


def _dead(stem: Stem) -> Finding | None:
    dead = [kernel.index for kernel in stem.filters if kernel.dead]
    if not dead:
        return None
    return Finding(
        "dead-filters", "warning", stem.address,
        (
            Evidence("dead filters", len(dead), "filters", f"activation ≤ 0 in {stem.num_images} images"),
            Evidence("share", len(dead) / len(stem.filters), "1"),
        ),
        f"{len(dead)} of {len(stem.filters)} filters fire in none of {stem.num_images} images: "
        f"{_listed(dead)}",
        "lower the learning rate or initialise again; what they compute is wasted",
        _SOURCE + "section 4.1",
    )  # fmt: skip


def _dominant(stem: Stem) -> Finding | None:
    strong = [kernel.index for kernel in stem.filters if kernel.dominance > DOMINANT]
    if not strong:
        return None
    largest = max(kernel.dominance for kernel in stem.filters)
    return Finding(
        "dominant-filters", "advice", stem.address,
        (
            Evidence("largest RMS / median RMS", largest, "1", "weights before normalisation"),
            Evidence("inputs' RMS", stem.input_rms, "1", "ZF's radius of 0.1 was for pixels in [−128, 128]"),
        ),
        f"{len(strong)} filters have over {DOMINANT:g} times the median filter's weights, "
        f"up to {largest:.2g} times: {_listed(strong)}",
        "renormalise filters whose RMS exceeds a fixed radius during training, or use batch norm",
        _SOURCE + "section 3.1",
    )  # fmt: skip


def _weak(stem: Stem) -> Finding | None:
    weak = [kernel.index for kernel in stem.filters if kernel.dominance < WEAK]
    if not weak:
        return None
    return Finding(
        "weak-filters", "advice", stem.address,
        (Evidence("weak filters", len(weak), "filters", "weight RMS under a tenth of the median's"),),
        f"{len(weak)} of {len(stem.filters)} filters have under a tenth of the median filter's weights: "
        f"{_listed(weak)}",
        "prune them, or look for too strong weight decay",
        _SOURCE + "section 4.1",
    )  # fmt: skip


def _aliased(stem: Stem) -> Finding | None:
    if stem.aliased_share is None or stem.aliased_share <= ALIASED:
        return None
    vertical, horizontal = stem.stride
    what_if = [(what.stride[0], what.aliased_share or 0.0) for what in stem.what_if]
    others = ", ".join(f"stride {stride}: {share:.2f}" for stride, share in what_if)
    return Finding(
        "aliased-stem", "warning", stem.address,
        (
            Evidence(
                "energy beyond the Nyquist frequency", stem.aliased_share, "1",
                f"median filter, {stem.num_spectra} images, dense response without its mean",
            ),
            *(Evidence(f"with stride {stride}", share, "1", "same filters") for stride, share in what_if),
        ),
        f"half of the filters lose more than {stem.aliased_share:.0%} of their energy to false frequencies "
        f"at stride {vertical}×{horizontal} (the same filters with {others})",
        "use a smaller stride, smaller filters, or blur before subsampling",
        _SOURCE + "section 4.1: 11×11 with stride 4 became 7×7 with stride 2",
    )  # fmt: skip


def _listed(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:12]))
    return shown + (", …" if len(indices) > 12 else "")

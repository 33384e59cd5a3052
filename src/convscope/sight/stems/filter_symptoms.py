"""Findings about the first convolution's filters: dead, weak, dominant, alike, or leaving a gap."""

from collections.abc import Sequence

import torch

from convscope.core.finding import Evidence, Finding
from convscope.sight.stems.diagnosis import Stem
from convscope.sight.stems.filters import COPIES, DOMINANT, WEAK, WEIGHT_DEAD, ZF_RADIUS, fences

SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), "
GAP = 0.5
"""The middle has half of what it should have beside the weaker of its neighbours; random banks and evenly
spaced ones have 0."""


def dead(stem: Stem) -> Finding | None:
    """Units that never fire."""
    found = [kernel.index for kernel in stem.filters if kernel.dead]
    if not found:
        return None
    return Finding(
        "dead-filters", "warning", stem.address,
        (
            Evidence("dead filters", len(found), "filters", f"never active in {stem.num_images} images"),
            Evidence("share", len(found) / len(stem.filters), "1"),
        ),
        f"{len(found)} of {len(stem.filters)} filters fire in none of {stem.num_images} images: "
        f"{_listed(found)}",
        "lower the learning rate or initialise again, or look at more data first: rare units may fire there",
        SOURCE + "section 4.1",
    )  # fmt: skip


def weight_dead(stem: Stem) -> Finding | None:
    """Filters whose weights have all but vanished."""
    found = [kernel.index for kernel in stem.filters if kernel.weight_dead and not kernel.dead]
    if not found:
        return None
    return Finding(
        "vanished-filters", "warning", stem.address,
        (Evidence("vanished filters", len(found), "filters", f"under {WEIGHT_DEAD:g} of the median"),),
        f"{len(found)} of {len(stem.filters)} filters have weights under {WEIGHT_DEAD:g} of the median's: "
        f"{_listed(found)}",
        "prune them, or train with less weight decay on this layer",
        SOURCE + "section 4.1",
    )  # fmt: skip


def dominant(stem: Stem) -> Finding | None:
    """Filters much stronger than the others."""
    limit = max(DOMINANT, _fences(stem)[1])
    found = [kernel.index for kernel in stem.filters if kernel.dominance > limit]
    if not found:
        return None
    largest = max(kernel.dominance for kernel in stem.filters)
    return Finding(
        "dominant-filters", "advice", stem.address,
        (Evidence("largest strength / median strength", largest, "1", _how(stem)),),
        f"{_filters_have(found)} over {limit:.2g} times the median filter's strength, "
        f"up to {largest:.2g} times: {_listed(found)}",
        "renormalise filters whose RMS exceeds a fixed radius during training, or use batch norm",
        SOURCE + "section 3.1",
    )  # fmt: skip


def oversized(stem: Stem) -> Finding | None:
    """Filters beyond ZF's radius, converted to the images' scale."""
    if stem.radius is None:
        return None
    found = [kernel.index for kernel in stem.filters if kernel.strength > stem.radius]
    if not found or stem.is_folded:
        return None  # behind a normalisation the size of weights is undone
    largest = max(kernel.weight_rms for kernel in stem.filters)
    return Finding(
        "oversized-filters", "advice", stem.address,
        (
            Evidence("largest weight RMS", largest, "1"),
            Evidence("radius", stem.radius, "1", f"{ZF_RADIUS:g} for ±128, for ±{stem.input_range:.3g}"),
        ),
        f"{_filters_have(found)} weights with an RMS over {stem.radius:.3g}, which is ZF's radius of 0.1 for "
        f"pixels in ±{stem.input_range:.3g}: {_listed(found)}",
        "renormalise them to that radius after each step, as Zeiler and Fergus did",
        SOURCE + "section 3.1",
    )  # fmt: skip


def weak(stem: Stem) -> Finding | None:
    """Filters much weaker than the others."""
    limit = min(WEAK, _fences(stem)[0])
    found = [k.index for k in stem.filters if k.dominance < limit and not k.weight_dead]
    if not found:
        return None
    return Finding(
        "weak-filters", "advice", stem.address,
        (Evidence("weak filters", len(found), "filters", f"under {limit:.2g} of the median; {_how(stem)}"),),
        f"{len(found)} of {len(stem.filters)} filters have under {limit:.2g} of the median's strength: "
        f"{_listed(found)}",
        "prune them, or look for too strong weight decay",
        SOURCE + "section 4.1",
    )  # fmt: skip


def duplicates(stem: Stem) -> Finding | None:
    """Filters which compute the same."""
    superfluous = sum(len(group) - 1 for group in stem.duplicates)
    if not superfluous:
        return None
    shown = "; ".join(_listed(list(group)) for group in stem.duplicates[:6])
    return Finding(
        "duplicate-filters", "advice" if superfluous > len(stem.filters) / 10 else "info", stem.address,
        (
            Evidence("superfluous filters", superfluous, "filters", f"|cosine| over {COPIES:g} with another"),
            Evidence("share", superfluous / len(stem.filters), "1"),
        ),
        f"{superfluous} of {len(stem.filters)} filters are copies of others, or their negatives: {shown}",
        "fewer filters do, unless the copies differ in their shifts; more or more varied data separates them",
        SOURCE + "section 4.1",
    )  # fmt: skip


def gap(stem: Stem) -> Finding | None:
    """A bank of low and high frequencies without the middle."""
    found = stem.coverage.gap
    if found is None or found <= GAP:
        return None
    mid = stem.coverage.octaves[3]
    return Finding(
        "frequency-gap", "warning", stem.address,
        (
            Evidence("mid-frequency gap index", found, "1", "1 − mid / min(low, high), over Gabor filters"),
            Evidence("share of energy from 1/8 to 1/4 cycles per pixel", mid.share, "1"),
            Evidence("share that even coverage has", mid.reference, "1"),
        ),
        f"the filters hold low and high frequencies but little between them: {mid.share:.0%} of their energy "
        f"where even coverage has {mid.reference:.0%} (gap index {found:.2g})",
        "use a smaller stride and smaller filters, train longer or on more data, and look again",
        SOURCE + "section 4.1: “little coverage of the mid frequencies”",
    )  # fmt: skip


def _fences(stem: Stem) -> tuple[float, float]:
    return fences(torch.tensor([kernel.dominance for kernel in stem.filters], dtype=torch.float64))


def _how(stem: Stem) -> str:
    return "weight RMS with the scale behind it folded in" if stem.is_folded else "weight RMS"


def _listed(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:12]))
    return shown + (", …" if len(indices) > 12 else "")


def _filters_have(found: Sequence[int]) -> str:
    return "1 filter has" if len(found) == 1 else f"{len(found)} filters have"

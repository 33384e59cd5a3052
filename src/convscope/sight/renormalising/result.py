"""What renormalisation did to a network's filters, and what should be known about it."""

from collections.abc import Iterator
from dataclasses import dataclass

from convscope.core.finding import Evidence, Finding
from convscope.core.result import Result

SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), section 3.1"
PUBLISHED_RADIUS = 0.1
PUBLISHED_INPUT_RMS = 58.0
"""RMS of ImageNet's pixels from 0 to 255 about their mean: 255 times the usual standard deviation, 0.226."""
_FAR = 3.0


@dataclass(frozen=True)
class RenormalisedLayer:
    """The filters of one weight.

    Attributes:
        name: of the first module that uses it.
        shared_with: the other modules that do.
        num_filters: in the weight.
        num_steps: optimizer steps in which it was looked at; fewer where it was frozen for a time.
        frozen: it isn't trained now, and isn't touched.
        clipped: how many filters were scaled back in each bin of ``steps_per_bin`` steps.
        steps_per_bin: steps in a bin; the last one may cover fewer.
        times: in how many steps each filter was scaled back.
        first_rms: median RMS of the filters before the first scaling; None before the first step.
        first_share: share of the filters that exceeded the radius then.
        largest_rms: now.
        not_finite: filters whose RMS was NaN or infinite in some step; they were left as they are.
    """

    name: str
    shared_with: tuple[str, ...]
    num_filters: int
    num_steps: int
    frozen: bool
    clipped: tuple[int, ...]
    steps_per_bin: int
    times: tuple[int, ...]
    first_rms: float | None
    first_share: float | None
    largest_rms: float
    not_finite: tuple[int, ...]

    @property
    def share_clipped(self) -> float | None:
        """Share of all (filter, step) pairs in which a filter was scaled back; None without steps."""
        return sum(self.times) / (self.num_filters * self.num_steps) if self.num_steps else None


@dataclass(frozen=True)
class Renormalised(Result):
    """Counts of the filters that were scaled back.

    Attributes:
        radius: the largest RMS a filter may keep.
        input_rms: of the network's inputs, as stated; None if it wasn't.
        layers: a row for every weight.
        findings: a radius that doesn't fit, weights that aren't finite.
    """

    radius: float
    input_rms: float | None
    layers: tuple[RenormalisedLayer, ...]
    findings: tuple[Finding, ...]


def findings_on(
    radius: float, input_rms: float | None, layers: tuple[RenormalisedLayer, ...]
) -> tuple[Finding, ...]:
    """Return what should be known about a renormalisation."""
    found = [finding for layer in layers for finding in _on_layer(layer, radius)]
    if input_rms is not None:
        found += _on_inputs(radius, input_rms)
    ran = [layer for layer in layers if layer.num_steps]
    if ran and not any(any(layer.times) for layer in ran):
        largest = max(layer.largest_rms for layer in ran)
        found.append(
            Finding(
                "radius-never-reached",
                "info",
                "self",
                (Evidence("largest RMS now", largest, "1"), Evidence("radius", radius, "1")),
                f"no filter exceeded the radius of {radius:g} in any step, so nothing was changed",
                "",
                SOURCE,
            )
        )
    return tuple(found)


def _on_layer(layer: RenormalisedLayer, radius: float) -> Iterator[Finding]:
    if layer.not_finite:
        yield Finding(
            "filters-not-finite", "error", layer.name,
            (Evidence("filters", len(layer.not_finite), "filters"),),
            f"{len(layer.not_finite)} of {layer.num_filters} filters held NaN or infinite weights "
            "and were left as they are",
            "lower the learning rate, or look where the first NaN comes from", SOURCE,
        )  # fmt: skip
    if layer.first_share is not None and layer.first_share >= 0.5:
        yield Finding(
            "radius-below-most-filters", "warning", layer.name,
            (
                Evidence("share of the filters above the radius at the first step", layer.first_share, "1"),
                Evidence("their median RMS then", layer.first_rms or 0.0, "1"),
                Evidence("radius", radius, "1"),
            ),
            f"{100 * layer.first_share:.0f} % of the filters exceeded the radius at the first step: it holds "
            "the whole layer down instead of the few filters that dominate",
            "choose a radius of a few times the filters' usual RMS; Zeiler and Fergus's 0.1 is meant for "
            "inputs of about [−128, 128] and weights that begin at an RMS of 0.01",
            SOURCE,
        )  # fmt: skip


def _on_inputs(radius: float, input_rms: float) -> Iterator[Finding]:
    fitting = PUBLISHED_RADIUS * PUBLISHED_INPUT_RMS / input_rms
    if fitting / _FAR <= radius <= fitting * _FAR:
        return
    way = "tighter" if radius < fitting else "looser"
    yield Finding(
        "radius-for-other-inputs", "warning", "self",
        (
            Evidence("RMS of the inputs", input_rms, "1", "as stated"),
            Evidence("radius", radius, "1"),
            Evidence("radius of the same effect on a first layer", fitting, "1", "0.1 · 58 / RMS"),
        ),
        f"a radius of {radius:g} for inputs of RMS {input_rms:g} is "
        f"{max(fitting / radius, radius / fitting):.0f} times {way} than 0.1 for inputs of RMS 58",
        f"for the same effect on a first layer take about {fitting:.2g}", SOURCE,
    )  # fmt: skip

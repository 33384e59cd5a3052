"""Findings about the layers of a gallery: units that say nothing, and how far pictures can be trusted."""

from collections.abc import Iterator

from convscope.core.finding import Evidence, Finding
from convscope.sight.collecting.tally import NEAR_DEAD
from convscope.sight.judging.remarks import remarks_on
from convscope.sight.picturing.album import Layer
from convscope.sight.projecting.projection import Rule, Scores

_SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.1"
_MANY = 0.1  # of a layer's units
_NEGATIVE = (
    "look at more images; don't prune them for this: what follows may use the negative values "
    "(ablate one to see)"
)
_ZERO = (
    "look at more images; units that stay so and hand on zeros alone, as after a ReLU, do nothing: lower the "
    "learning rate, start anew, or prune those"
)


def findings_on(layer: Layer, rule: Rule, num_images: int, template: str = "") -> tuple[Finding, ...]:
    """Return what should be known about a layer of a gallery.

    Args:
        layer: of the gallery.
        rule: of its projections.
        num_images: that were looked at.
        template: see :func:`~convscope.sight.judging.remarks.remarks_on`.
    """
    return (
        *_dead(layer, num_images),
        *_near_dead(layer),
        *_constant(layer, num_images),
        *_tied(layer),
        *_remarks(layer, rule, template),
    )


def _dead(layer: Layer, num_images: int) -> Iterator[Finding]:
    dead = [unit for unit in layer.units if unit.dead]
    if not dead:
        return
    lowest = [unit.minimum for unit in dead if unit.minimum is not None and unit.minimum < 0]
    all_negative = len(lowest) == len(dead)
    who = "they" if all_negative else f"{len(lowest)} of them"
    passed = f"; {who} still pass negative values on, down to {min(lowest):.3g}" if lowest else ""
    yield Finding(
        "dead-units", "advice" if all_negative else "warning", layer.address,
        _counted(layer, "dead units", len(dead), f"activation ≤ 0 in {num_images} images"),
        f"{len(dead)} of {len(layer.units)} units are positive in none of {num_images} images{passed}",
        _NEGATIVE if all_negative else _ZERO,
        _SOURCE,
    )  # fmt: skip


def _near_dead(layer: Layer) -> Iterator[Finding]:
    count = sum(unit.near_dead for unit in layer.units)
    if count >= _MANY * len(layer.units):
        yield Finding(
            "near-dead-units", "advice", layer.address,
            _counted(layer, "near-dead units", count, f"positive in less than {NEAR_DEAD:.0%} of the images"),
            f"{count} of {len(layer.units)} units are positive in less than {NEAR_DEAD:.0%} of the images",
            "see in their patches whether they are rare features or on their way to dying",
            _SOURCE,
        )  # fmt: skip


def _constant(layer: Layer, num_images: int) -> Iterator[Finding]:
    count = sum(bool(unit.always_on) for unit in layer.units)
    if not _is_gate(layer) and count >= _MANY * len(layer.units):
        yield Finding(
            "always-on-units", "advice", layer.address,
            _counted(layer, "always-on units", count, f"positive everywhere in {num_images} images"),
            f"{count} of {len(layer.units)} units are positive at every position of all images: for these "
            "images their activation is linear",
            "expected of softplus and of sums without an activation; after a ReLU, its unit could do without",
            "He et al. 2015 (arXiv 1502.01852), section 2.1",
        )  # fmt: skip


def _is_gate(layer: Layer) -> bool:
    """Whether all values lie in [0, 1], as a sigmoid's do: to be positive everywhere is its nature."""
    return all(unit.minimum is not None and unit.minimum >= 0 and unit.maximum <= 1 for unit in layer.units)


def _tied(layer: Layer) -> Iterator[Finding]:
    tied = [unit for unit in layer.units if len({example.value for example in unit.examples}) == 1]
    count = sum(len(unit.examples) > 1 for unit in tied)
    if count >= _MANY * len(layer.units):
        yield Finding(
            "tied-units", "advice", layer.address,
            _counted(layer, "tied units", count, "all examples have the same activation"),
            f"{count} of {len(layer.units)} units have the same activation in all of their examples: among "
            "equals the images that come first are taken, not better ones",
            "an activation that saturates, such as ReLU6, hides which is the strongest: name the module "
            "before it in layers=[…], its normalisation for one, to rank by what the activation was given",
            "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4",
        )  # fmt: skip


def _remarks(layer: Layer, rule: Rule, template: str) -> Iterator[Finding]:
    if layer.census is not None:
        scores = Scores(layer.selectivity, layer.image_dependence, layer.randomisation, layer.masking_drop)
        yield from remarks_on(layer.address, rule, layer.census, scores, template=template)
    if layer.projected is not None:
        yield Finding(
            "not-projected", "warning", layer.address,
            (Evidence("units without projections", len(layer.units), "units"),),
            f"there are patches and statistics, but no projections: {layer.projected}",
            "see what the message says, or choose rule='gradient'",
            "Zeiler and Fergus 2014 (arXiv 1311.2901), section 2.1",
        )  # fmt: skip


def _counted(layer: Layer, name: str, count: int, how: str) -> tuple[Evidence, ...]:
    return (
        Evidence(name, count, "units", how),
        Evidence("share of the layer", count / len(layer.units), "1"),
    )

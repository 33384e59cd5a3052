"""Findings about two galleries: what changed for the worse, and what limits the comparison."""

from collections.abc import Iterator

from convscope.core.finding import Evidence, Finding
from convscope.sight.collecting.tally import NEAR_DEAD
from convscope.sight.comparing.result import LayerComparison

FEW_IMAGES = 32
_MANY = 0.1  # of a layer's units
_MORE_ALIASED = 0.02  # of the energy
_SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.1"


def findings_on(layers: tuple[LayerComparison, ...], num_profile_images: int) -> tuple[Finding, ...]:
    """Return what should be known, layer by layer, then about the whole."""
    found = [finding for layer in layers for rule in _RULES for finding in rule(layer)]
    return (*found, *_few_images(num_profile_images))


def _dead(layer: LayerComparison) -> Iterator[Finding]:
    before, after = (count / width for count, width in zip(layer.num_dead, layer.num_units))
    if after > before:
        yield Finding(
            "more-dead-units", "warning", layer.unit_addresses[1],
            _shares("dead units", before, after, "activation ≤ 0 in all images"),
            f"{_of(layer, 1, layer.num_dead)} are dead, {_of(layer, 0, layer.num_dead)} were"
            + (f"; {layer.count('died')} of the same channels died" if layer.by == "channel" else ""),
            "look at what lies between the two: learning rate, initialisation, stride of the layer",
            _SOURCE,
        )  # fmt: skip


def _near_dead(layer: LayerComparison) -> Iterator[Finding]:
    before, after = (count / width for count, width in zip(layer.num_near_dead, layer.num_units))
    if after - before >= _MANY:
        yield Finding(
            "more-near-dead-units", "advice", layer.unit_addresses[1],
            _shares("near-dead units", before, after, f"positive in less than {NEAR_DEAD:.0%} of the images"),
            f"{_of(layer, 1, layer.num_near_dead)} are positive in less than {NEAR_DEAD:.0%} of the images, "
            f"{_of(layer, 0, layer.num_near_dead)} were",
            "see in their patches whether they are rare features or on their way to dying",
            _SOURCE,
        )  # fmt: skip


def _always_on(layer: LayerComparison) -> Iterator[Finding]:
    counts = layer.num_always_on
    if counts[0] is None or counts[1] is None:
        return
    before, after = counts[0] / layer.num_units[0], counts[1] / layer.num_units[1]
    if after - before >= _MANY:
        yield Finding(
            "more-always-on-units", "advice", layer.unit_addresses[1],
            _shares("always-on units", before, after, "positive everywhere in all images"),
            f"{counts[1]} of {layer.num_units[1]} units are positive everywhere, "
            f"{counts[0]} of {layer.num_units[0]} were: for these images they are linear",
            "after a ReLU, such a unit could do without it",
            "He et al. 2015 (arXiv 1502.01852), section 2.1",
        )  # fmt: skip


def _lost(layer: LayerComparison) -> Iterator[Finding]:
    if layer.chance is None or len(layer.lost) < _MANY * layer.num_units[0]:
        return
    if layer.by == "channel":
        yield Finding(
            "lost-features", "advice", layer.unit_addresses[0],
            (
                Evidence("lost features", len(layer.lost), "units", "no unit of the second like it"),
                Evidence("correlation of partners by chance", layer.chance, "1", "95th percentile"),
            ),
            f"{len(layer.lost)} of {layer.num_units[0]} units have none like them any more, "
            f"and {len(layer.new)} of {layer.num_units[1]} are like none before",
            "compare their pictures: the units that changed most come first",
        )  # fmt: skip
    else:
        yield Finding(
            "lost-features", "info", layer.unit_addresses[0],
            (
                Evidence("lost features", len(layer.lost), "units", "no unit of the second like it"),
                Evidence("correlation of the nearest unit by chance", layer.chance, "1", "95th percentile"),
            ),
            f"{len(layer.lost)} of {layer.num_units[0]} units have none like them in the second gallery, and "
            f"{len(layer.new)} of {layer.num_units[1]} none in the first: usual between networks that were "
            "trained independently, a loss between checkpoints of one",
            "",
            "Li et al. 2015 (arXiv 1511.07543), section 3",
        )  # fmt: skip


def _aliased(layer: LayerComparison) -> Iterator[Finding]:
    before, after = layer.aliased_shares or (None, None)
    if before is not None and after is not None and after - before >= _MORE_ALIASED:
        yield Finding(
            "more-aliasing", "warning", layer.unit_addresses[1],
            _shares("aliased energy", before, after, "median over the filters"),
            f"the stride folds {after:.1%} of a filter's energy into false frequencies, it was {before:.1%}",
            "choose the smaller stride, or blur before it",
            _SOURCE,
        )  # fmt: skip


def _few_images(count: int) -> Iterator[Finding]:
    if count < FEW_IMAGES:
        yield Finding(
            "few-images", "info", "",
            (Evidence("images of the profiles", count, "images"),),
            f"units are matched by their answers to {count} images; few correlations exceed chance then",
            f"make the galleries of {FEW_IMAGES} images or more, 256 if possible",
        )  # fmt: skip


_RULES = (_dead, _near_dead, _always_on, _lost, _aliased)


def _shares(what: str, before: float, after: float, method: str) -> tuple[Evidence, ...]:
    return (
        Evidence(f"{what}, first gallery", before, "1", method),
        Evidence(f"{what}, second gallery", after, "1", method),
    )


def _of(layer: LayerComparison, side: int, counts: tuple[int, int]) -> str:
    return f"{counts[side]} of {layer.num_units[side]} units"

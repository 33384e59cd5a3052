"""What should be known before a correspondence is believed."""

from collections.abc import Iterator, Mapping

from convscope.core.finding import Evidence, Finding
from convscope.sight.corresponding.marks import Boxes, Masking, covered, overlap
from convscope.sight.corresponding.result import CorrespondingLayer, PartRow

SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.3"
_SAME_PLACE = 0.25
_FEW_IMAGES = 5


def remarks(
    layers: tuple[CorrespondingLayer, ...],
    boxes: Mapping[str, Boxes],
    image_size: tuple[int, int],
    masking: Masking,
) -> tuple[Finding, ...]:
    """Return the findings about a correspondence."""
    found = [*_few_images(boxes), *_no_room(boxes, image_size, masking)]
    if masking.placement == "anywhere":
        found += _same_place(boxes)
    for layer in layers:
        for row in layer.parts:
            found += [*_by_sparsity(layer, row), *_unchanged(layer, row)]
    return tuple(found)


def _few_images(boxes: Mapping[str, Boxes]) -> Iterator[Finding]:
    fewest = min(sum(box is not None for box in each) for each in boxes.values())
    if fewest < _FEW_IMAGES:
        yield Finding(
            "few-images", "info", "self", (Evidence("images with the part", fewest, "images"),),
            f"a part is marked in {fewest} images: intervals are wide, and take at least three",
            "mark more images", SOURCE,
        )  # fmt: skip


def _no_room(boxes: Mapping[str, Boxes], image_size: tuple[int, int], masking: Masking) -> Iterator[Finding]:
    for name, each in boxes.items():
        share = covered(each, image_size, masking)
        if share > _SAME_PLACE:
            yield Finding(
                "patches-cover-the-part", "warning", "self",
                (Evidence("mean overlap with random patches", share, "1", "intersection over union"),),
                f"random patches overlap {name!r} by {100 * share:.0f} % on average: differences from "
                "them are small, whatever the network does",
                "mark smaller boxes"
                + (", or use Masking(placement='anywhere')" if masking.placement == "together" else ""),
                SOURCE,
            )  # fmt: skip


def _same_place(boxes: Mapping[str, Boxes]) -> Iterator[Finding]:
    for name, each in boxes.items():
        shared = overlap(each)
        if shared > _SAME_PLACE:
            yield Finding(
                "part-in-one-place", "warning", "self",
                (Evidence("mean overlap of its boxes", shared, "1", "intersection over union"),),
                f"the boxes of {name!r} overlap by {100 * shared:.0f} % from image to image, random patches "
                "hardly: in layers with maps the same places change, whatever is there",
                "compare with Masking(placement='together'), which moves all boxes alike", SOURCE,
            )  # fmt: skip


def _by_sparsity(layer: CorrespondingLayer, row: PartRow) -> Iterator[Finding]:
    gain = row.agreement_gain
    if row.verdict != "consistent" or row.here is None or row.random is None or gain is None:
        return
    if gain.low is None or gain.low <= 0:
        yield Finding(
            "consistent-by-sparsity", "warning", layer.name,
            (
                Evidence("share of the features that the part changes", row.here.changed, "1"),
                Evidence("that random patches change", row.random.changed, "1"),
                Evidence("gain of κ", gain.value, "1"),
            ),
            f"Δ of {row.part!r} is below random patches', but its agreement beyond chance isn't above "
            "theirs: it changes fewer features, and zeros agree",
            "judge this layer by the agreement, not by Δ", SOURCE,
        )  # fmt: skip


def _unchanged(layer: CorrespondingLayer, row: PartRow) -> Iterator[Finding]:
    if row.unchanged:
        listed = ", ".join(map(str, row.unchanged[:5])) + (", …" if len(row.unchanged) > 5 else "")
        yield Finding(
            "mask-without-effect", "info" if row.here else "warning", layer.name,
            (Evidence("images", len(row.unchanged), "images"),),
            f"masking {row.part!r} changes nothing in images {listed}, which aren't compared",
            "look whether the box is right, or has the fill's colour already", SOURCE,
        )  # fmt: skip

"""Projections and galleries in the terminal; pictures are named, not drawn."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, findings, findings_by_kind, label, sections, table, title
from convscope.report.wording.census import census_words
from convscope.report.wording.formats import MISSING, joined, number, shape, write
from convscope.sight import Box, Gallery, Layer, Projection

MANY = 5  # damaged images that are named


@renders(Projection)
def render_projection(projection: Projection) -> RenderableType:
    """Return what was projected from where, the scores, and what to know before believing the picture."""
    box, scores, field = projection.box, projection.scores, projection.receptive_field
    shown = [
        (
            "rule",
            projection.rule + (f": {projection.rule_reason}" if projection.rule_reason else ", as asked"),
        ),
        ("activation", number(projection.seed_value)),
        (
            "position in its map",
            joined(projection.position) if projection.position else "none: it has no space",
        ),
        (
            "pixels it sees",
            f"rows {box.top} to {box.bottom}, columns {box.left} to {box.right} (the last excluded)",
        ),
        (
            "receptive field",
            f"{shape(field.size)} pixels, every {shape(field.stride)}" if field else _seen(projection),
        ),
    ]
    names = ("selectivity", "image_dependence", "randomisation", "masking_drop")
    shown += [(name.replace("_", " "), write("number", getattr(scores, name))) for name in names]
    shown.append(("operators below", census_words(projection.census)))
    return sections(
        title(f"Unit {projection.unit} of {projection.address}"),
        facts(shown),
        findings(projection.findings, "nothing speaks against the picture"),
    )


def _seen(projection: Projection) -> str:
    """What is said of a receptive field that isn't one window everywhere."""
    size = (projection.image.shape[0], projection.image.shape[1])
    return "the whole image" if _is_whole(projection.box, size) else "differs by position"


def _is_whole(box: Box, size: tuple[int, int]) -> bool:
    return (box.top, box.left, box.bottom, box.right) == (0, 0, *size)


@renders(Gallery)
def render_gallery(gallery: Gallery) -> RenderableType:
    """Return a line for every layer, what was left out, and the findings."""
    columns = (
        "Layer",
        "Units#",
        "Dead#",
        "Near-dead#",
        "Map",
        "Sees px#",
        "Selectivity#",
        "Image dep.#",
        "Random.#",
        "Masking#",
    )
    units = sum(len(layer.units) for layer in gallery.layers)
    head = f"Gallery of {units} units over {gallery.num_images} images"
    skipped = (f"skipped: {damage.path}: {damage.reason}" for damage in gallery.damaged[:MANY])
    more = [f"and {len(gallery.damaged) - MANY} more images skipped"] if len(gallery.damaged) > MANY else []
    without = (
        f"without projections: {layer.name}: {layer.projected}" for layer in gallery.layers if layer.projected
    )
    lines = [*(f"left out: {reason}" for reason in gallery.left_out), *without, *skipped, *more]
    return sections(
        title(f"{head} ({gallery.rule}, top {gallery.top}), in {gallery.folder}"),
        table(columns, (_layer(layer, gallery.image_size) for layer in gallery.layers)),
        label(
            "Scores: medians over the units judged. Open index.html in the folder to look at the pictures.",
            "dim",
        ),
        facts((("rule", f"{gallery.rule}: {gallery.rule_reason}"),)),
        Group(*(label(line, "dim") for line in lines)) if lines else None,
        findings_by_kind(gallery.findings),
    )


def _layer(layer: Layer, image_size: tuple[int, int]) -> tuple[object, ...]:
    field = layer.receptive_field
    return (
        layer.name,
        len(layer.units),
        sum(unit.dead for unit in layer.units),
        sum(unit.near_dead for unit in layer.units),
        shape(layer.map_size),
        shape(field.size) if field else _sees(layer, image_size),
        write("number", layer.selectivity),
        write("number", layer.image_dependence),
        write("number", layer.randomisation),
        write("number", layer.masking_drop),
    )


def _sees(layer: Layer, image_size: tuple[int, int]) -> str:
    """What a layer's units see where that isn't one window: by the boxes of their strongest images."""
    boxes = [example.box for unit in layer.units for example in unit.examples]
    if not boxes:
        return MISSING
    return "image" if all(_is_whole(box, image_size) for box in boxes) else "varies"

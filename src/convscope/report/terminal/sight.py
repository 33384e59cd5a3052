"""Projections, galleries and the first layer in the terminal; pictures are named, not drawn."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.formats import joined, number, shape, write
from convscope.report.terminal.tables import facts, findings, label, sections, table, title
from convscope.sight import Census, Filter, Gallery, Layer, Projection, Stem


@renders(Projection)
def render_projection(projection: Projection) -> RenderableType:
    """Return what was projected from where, the scores, and what to know before believing the picture."""
    box, scores, field = projection.box, projection.scores, projection.receptive_field
    shown = [
        ("rule", projection.rule),
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
            f"{shape(field.size)} pixels, every {shape(field.stride)}" if field else "the whole image",
        ),
    ]
    names = ("selectivity", "image_dependence", "randomisation", "masking_drop")
    shown += [(name.replace("_", " "), write("number", getattr(scores, name))) for name in names]
    shown.append(("operators below", _census(projection.census)))
    return sections(
        title(f"Unit {projection.unit} of {projection.address}"),
        facts(shown),
        findings(projection.findings, "nothing speaks against the picture"),
    )


@renders(Gallery)
def render_gallery(gallery: Gallery) -> RenderableType:
    """Return a line for every layer, what was left out, and the findings."""
    columns = (
        "Layer",
        "Units#",
        "Dead#",
        "Map",
        "Sees px#",
        "Selectivity#",
        "Image dependence#",
        "Patches",
        "Projections",
    )
    units = sum(len(layer.units) for layer in gallery.layers)
    head = f"Gallery of {units} units over {gallery.num_images} images"
    left_out = Group(*(label(f"left out: {reason}", "dim") for reason in gallery.left_out))
    return sections(
        title(f"{head} ({gallery.rule}, top {gallery.top}), in {gallery.folder}"),
        table(columns, map(_layer, gallery.layers)),
        left_out if gallery.left_out else None,
        findings(gallery.findings),
    )


@renders(Stem)
def render_stem(stem: Stem) -> RenderableType:
    """Return the numbers of the first layer and of its filters."""
    filters = map(_filter, stem.filters)
    columns = ("Filter#", "Weight RMS#", "÷ median#", "Aliased energy#", "Largest activation#", "")
    what_if = "; ".join(
        f"stride {shape(each.stride)}: {write('percent', each.aliased_share)}" for each in stem.what_if
    )
    return sections(
        title(f"First layer {stem.name}: {shape(stem.kernel)} pixels, stride {shape(stem.stride)}"),
        facts(
            (
                ("images", f"{stem.num_images}; RMS of their pixels {number(stem.input_rms)}"),
                ("aliased energy", f"{write('percent', stem.aliased_share)} (median over the filters)"),
                ("with other strides", what_if),
            )
        ),
        table(columns, filters),
        findings(stem.findings),
    )


def _filter(each: Filter) -> tuple[object, ...]:
    return (
        each.index,
        number(each.weight_rms),
        f"{each.dominance:.2f}",
        write("percent", each.aliased_share),
        write("number", each.maximum),
        "dead" if each.dead else "",
    )


def _census(census: Census) -> str:
    return (
        f"{len(census.rewritten)} ReLUs rewritten, {len(census.switches)} max-pools by switches, "
        f"{census.linear} linear (of them {census.convolutions} convolutions), "
        f"{len(census.identity)} passed as identities, "
        f"{len(census.plain)} by their plain gradient"
    )


def _layer(layer: Layer) -> tuple[object, ...]:
    field = layer.receptive_field
    return (
        layer.name,
        len(layer.units),
        sum(unit.dead for unit in layer.units),
        shape(layer.map_size),
        shape(field.size) if field else "image",
        write("number", layer.selectivity),
        write("number", layer.image_dependence),
        layer.sprite.patches,
        layer.sprite.projections,
    )

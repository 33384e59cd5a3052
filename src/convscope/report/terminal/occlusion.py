"""Occlusion in the terminal: what was hidden, and what that changed most."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.formats import joined, number, shape, write
from convscope.sight import Occlusion
from convscope.sight.occluding.agreement import Agreement, Correlation
from convscope.sight.occluding.result import ClassMaps, UnitMaps
from convscope.sight.projecting.projection import Box


@renders(Occlusion)
def render_occlusion(found: Occlusion) -> RenderableType:
    """Return the window, the class's and the units' greatest drops, and agreements with projections."""
    colour = {"mean": "the image's mean", "zero": "zero", "given": "as given"}[found.colour_name]
    reuse = found.reuse
    shown = [
        (
            "window",
            f"{shape(found.window)} pixels, every {shape(found.stride)}, "
            f"{'hanging over the border' if found.overhang else 'inside the image'}",
        ),
        ("its colour", f"{colour}: {', '.join(map(number, found.colour))}"),
        ("places", f"{found.rows} × {found.columns}"),
        *(_class_facts(found.classes) if found.classes else [("class", "the network has no class scores")]),
        (
            "reuse",
            f"as far as {reuse.last}, {write('percent', reuse.share_of_work)} of the work ({reuse.reason})"
            if reuse.used
            else f"none: {reuse.reason}",
        ),
    ]
    units = ("Unit", "Clean total#", "Greatest drop#", "Of the total#", "Under rows × columns", "")
    agreements = (
        "Projection of",
        "Rule",
        "Drop of total#",
        "Rank#",
        "Of maximum#",
        "Rank#",
        "At its place#",
        "Rank#",
    )
    return sections(
        title(f"Occlusion of an image of {shape(found.image_size)} pixels"),
        facts(shown),
        table(units, map(_unit, found.units)) if found.units else None,
        table(agreements, map(_agreement, found.agreements), note="correlations with the projection's energy")
        if found.agreements
        else None,
    )


def _class_facts(classes: ClassMaps) -> list[tuple[str, str]]:
    drop = classes.drop
    chosen = "as asked" if classes.is_given else "the most probable one"
    return [
        ("output", classes.output),
        ("class", f"{classes.label}, {chosen}; probability {number(classes.clean_probability)}"),
        ("greatest drop", f"{number(drop.largest)} under {_box(drop.box)}; median {number(drop.median)}"),
        ("another class", f"most probable at {classes.num_changed} of {classes.labels.numel()} places"),
    ]


def _unit(unit: UnitMaps) -> tuple[object, ...]:
    return (
        f"{unit.unit} of {unit.layer}",
        number(unit.clean_total),
        number(unit.drop.largest),
        write("percent", unit.drop.share_of_clean),
        _box(unit.drop.box),
        "" if unit.fires else "doesn't fire",
    )


def _agreement(found: Agreement) -> tuple[object, ...]:
    nothing = Correlation(None, None)
    pairs = (found.total, found.maximum, found.place or nothing)
    numbers = (write("number", value) for pair in pairs for value in (pair.linear, pair.rank))
    return (f"unit {found.unit} of {found.layer}", found.rule, *numbers)


def _box(box: Box) -> str:
    return f"rows {joined((box.top, box.bottom - 1))}, columns {joined((box.left, box.right - 1))}"

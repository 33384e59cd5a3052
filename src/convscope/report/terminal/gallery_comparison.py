"""Two galleries side by side in the terminal: a line for each layer, then the units that changed most."""

from collections.abc import Iterator

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import findings, label, sections, table, title
from convscope.report.wording.formats import write
from convscope.sight import GalleryComparison
from convscope.sight.comparing.result import LayerComparison, UnitNumbers, UnitPair

_MOST = 12  # units that are named
_NOTE = (
    "correlation: of partners' largest activations per image, median; matched: above chance; own channel: "
    "none is nearer; overlap: of the strongest images; → from the first gallery to the second"
)
_CHANCE = {
    "channel": "by channel, with the one unit of its own channel",
    "profile": "by profile, with the nearest of all units, which is more",
}


@renders(GalleryComparison)
def render_gallery_comparison(found: GalleryComparison) -> RenderableType:
    """Return a line for every layer, the units that changed most, what was left out, and the findings."""
    columns = [
        "Layer", "Units#", "Partners", "Correlation#", "Chance#", "Matched#", "Own channel#", "Overlap#",
        "Lost#", "New#", "Dead#", "Near-dead#",
    ]  # fmt: skip
    has_stems = any(layer.aliased_shares for layer in found.layers)
    columns += ["Aliased#"] if has_stems else []
    images = f"{found.num_images[0]} images, profiles of {found.num_profile_images}, top {found.top}"
    rows = [_layer(layer)[: len(columns)] for layer in found.layers]
    units = table(("Layer", "Unit", "", "Correlation#", "Nearest", "Overlap#", "Maximum#"), _changed(found))
    return sections(
        title(f"{found.folders[0]} → {found.folders[1]} ({images}; layers by {found.layers_by})"),
        table(columns, rows, note=f"{_NOTE}\n{_chance(found)}"),
        Group(title("Changed most"), units) if units.row_count else None,
        Group(*(label(f"left out: {line}", "dim") for line in found.left_out)) if found.left_out else None,
        findings(found.findings, f"nothing changed{'' if found.is_unchanged else ' for the worse'}"),
    )


def _chance(found: GalleryComparison) -> str:
    """What chance is, for the ways of matching that occur."""
    ways = "; ".join(text for by, text in _CHANCE.items() if any(layer.by == by for layer in found.layers))
    return f"chance: the correlation that 1 in 20 unrelated units exceeds: {ways}"


def _layer(layer: LayerComparison) -> tuple[object, ...]:
    return (
        _both(layer.names[0], layer.names[1]),
        _both(*layer.num_units),
        f"by {layer.by}",
        write("number", layer.median_correlation),
        write("number", layer.chance),
        write("percent", layer.share_matched),
        write("percent", layer.share_by_channel),
        write("percent", layer.median_overlap),
        len(layer.lost),
        len(layer.new),
        f"{layer.num_dead[0]} → {layer.num_dead[1]}",
        f"{layer.num_near_dead[0]} → {layer.num_near_dead[1]}",
        " → ".join(write("percent", share) for share in layer.aliased_shares) if layer.aliased_shares else "",
    )


def _changed(found: GalleryComparison) -> Iterator[tuple[object, ...]]:
    """The pairs of all layers that changed most; equal ones in the layers' order."""
    pairs = [(layer, layer.pairs[number]) for layer in found.layers for number in layer.order]
    changed = sorted(
        (each for each in pairs if each[1].kind != "kept" and each[1].change > 0), key=_by_change
    )
    for layer, pair in changed[:_MOST]:
        yield (
            _both(*layer.names),
            _indices(pair),
            pair.kind,
            write("number", pair.correlation),
            _nearest(pair),
            write("percent", pair.overlap),
            _both(_maximum(pair.first), _maximum(pair.second)),
        )


def _by_change(each: tuple[LayerComparison, UnitPair]) -> float:
    return -each[1].change


def _indices(pair: UnitPair) -> str:
    first, second = ("–" if unit is None else str(unit.index) for unit in (pair.first, pair.second))
    return _both(first, second)


def _nearest(pair: UnitPair) -> str:
    if pair.nearest is None:
        return "–"
    return f"unit {pair.nearest} of the {'first' if pair.first is None else 'second'}: " + write(
        "number", pair.nearest_correlation
    )


def _maximum(unit: UnitNumbers | None) -> str:
    return write("number", None if unit is None else unit.maximum)


def _both(first: object, second: object) -> str:
    return str(first) if first == second else f"{first} → {second}"

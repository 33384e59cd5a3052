"""Correspondence analyses in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, findings, sections, table, title
from convscope.report.wording.formats import counted, joined, with_error
from convscope.sight import Correspondence
from convscope.sight.corresponding.result import Consistency, CorrespondingLayer, Estimate, PartRow

_NOTE = (
    "Δ: share of the features whose signs of change differ, mean over pairs of images; κ: agreement beyond "
    "chance; ± one standard error, brackets 95 %"
)


@renders(Correspondence)
def render_correspondence(found: Correspondence) -> RenderableType:
    """Return a row for each layer and part, and each layer's verdict."""
    columns = (
        "Layer", "Part", "Pairs#", "Δ#", "Δ random#", "Random less part", "κ#", "κ random#", "Verdict"
    )  # fmt: skip
    shown = [
        ("random patches", f"{counted(found.draws, 'draws')}, {found.placement}, seed {found.seed}"),
        ("masked pixels become", joined([f"{value:g}" for value in found.fill])),
        *(("not read", f"image {image}") for image in found.unread),
        *(("left out", reason) for reason in found.left_out),
    ]
    rows = [row for layer in found.layers for row in _rows(layer)]
    return sections(
        title(f"Correspondence of {joined(found.parts)} over {counted(found.num_images, 'images')}"),
        facts(shown),
        table(columns, rows, note=_NOTE),
        findings(found.findings),
    )


def _rows(layer: CorrespondingLayer) -> list[tuple[object, ...]]:
    rows = [_row(layer.name if not place else "", row) for place, row in enumerate(layer.parts)]
    if len(layer.parts) > 1:
        mean = ("", "all parts", "", "", "", _interval(layer.difference), "", "", layer.verdict)
        rows.append(mean)
    return rows


def _row(name: str, row: PartRow) -> tuple[object, ...]:
    here, random = row.here, row.random
    verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
    return (
        name,
        row.part,
        here.num_pairs if here else 0,
        _delta(here),
        _delta(random),
        _interval(row.difference),
        _agreement(here),
        _agreement(random),
        verdict,
    )


def _delta(each: Consistency | None) -> str:
    return with_error(*((each.delta.value, each.delta.standard_error) if each else (None, None)))


def _agreement(each: Consistency | None) -> str:
    return f"{each.agreement.value:.2f}" if each else "–"


def _interval(difference: Estimate | None) -> str:
    if difference is None:
        return "–"
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.3f}"
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"

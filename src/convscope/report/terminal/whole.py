"""A whole report in the terminal: the five findings, a line for each part, and where the page is."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes, format_count
from convscope.report.terminal.tables import UNITS_NOTE, facts, finding, label, sections, title
from convscope.report.whole.ranking import RankedFinding
from convscope.report.whole.result import Report
from convscope.report.wording.formats import counted, percent, ratio, seconds, shape, write
from convscope.report.wording.speed import about_one

_PLURALS = {"error": "errors", "warning": "warnings", "info": "facts"}


@renders(RankedFinding)
def render_ranked(ranked: RankedFinding) -> RenderableType:
    """Return a finding with its place and why it has it."""
    return Group(finding(ranked.finding, ranked.rank), label(f"   {ranked.reason}", "dim"))


@renders(Report)
def render_report(report: Report) -> RenderableType:
    """Return what matters of a report, and where its page is."""
    subject = report.subject
    head = f"{subject.network}, input {shape(subject.input_shape)}"
    head += f", {subject.norm} norm" if subject.norm else ""
    found = [render_ranked(ranked) for ranked in report.findings]
    return sections(
        title(f"{head}; weights {subject.weights}"),
        facts(_parts(report)),
        label(UNITS_NOTE, "dim"),
        title("What matters most"),
        *(found or [label("no reading found anything to report", "dim")]),
        facts(
            (
                *((f"no {part.name}", part.reason) for part in report.missing),
                ("time", seconds(report.seconds)),
            )
        ),
        label(f"The page: {report.page}", "bold"),
    )


def _parts(report: Report) -> list[tuple[str, str]]:
    """A line for each part that there is."""
    totals, counts = report.cost.totals, report.counts
    peak = format_bytes(report.cost.forecast.allocated_peak_bytes)
    lines = [
        ("cost", f"{format_count(totals.params)} parameters, {format_count(totals.macs)} MACs for a batch of "
         f"{report.cost.batch_size}; {peak} at the peak of a training step")
    ]  # fmt: skip
    if report.training:
        without = (
            f", {write('percent', report.training.twin_best_accuracy)} without"
            if report.training.twin
            else ""
        )
        best = write("percent", report.training.best_accuracy)
        lines.append(
            ("training", f"{best} of validation images right with {report.training.norm} norm{without}")
        )
    if report.checkup:
        found = [(name, count) for name, count in counts["checkup"].items() if count]
        severities = ", ".join(counted(count, _PLURALS.get(name, name)) for name, count in found)
        lines.append(
            ("check-up", f"{counted(counts['norms'], 'batch norms')}: {severities or 'no findings'}")
        )
    if report.folded and report.folded.ledger.entries:
        speed = report.folded.speed
        same = speed is not None and about_one(speed.speedup_low, speed.speedup_high)
        faster = (
            f"; {'about the same speed: ' if same else ''}{ratio(speed.speedup)} the speed" if speed else ""
        )
        norms = counted(counts["ledger"], "batch norms")
        lines.append(("fold", f"{report.folded.ledger.folded} of {norms} folded{faster}"))
    if report.stem:
        aliased = percent(report.stem.aliased_share) if report.stem.aliased_share is not None else "no"
        lines.append(
            (
                "first layer",
                f"{counts['filters']} filters, {counts['dead_filters']} dead, {aliased} aliased energy",
            )
        )
    if report.gallery:
        lines.append(("gallery", f"{counts['units']} units, {counts['dead_units']} dead"))
    return lines

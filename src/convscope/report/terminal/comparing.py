"""A comparison of trainings in the terminal: its arms, how they differ, what is claimed; and its forecast."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.experiment_settings import compared, facts_of, heading, listed
from convscope.report.wording.formats import MISSING, number, percent, seconds
from convscope.report.wording.intervals import bounded, caution, span, written, written_verdict
from convscope.train.comparing import Comparison, ComparisonForecast, Verdict
from convscope.train.comparing.result import ArmResult, Reached

_ARMS = ("Arm", "Final error#", "95 %#", "Gap, points#", "To target#", "Diverged#")
_DIFFERENCES = ("Error, points#", "95 %#", "p\n2-sided#", "Steps, ratio#", "Sign")
_TESTED = (
    "Seed by seed: 95 % t interval, exact two-sided sign-flip p; a claim's is one-sided, half of it. Steps: "
    "geometric mean of ratios, a bound where a run never reached the target. Established: the interval "
    "excludes zero, and the one-sided p is below 5 %."
)
_STYLES = {"supported": "bold green", "contradicted": "bold red"}


@renders(Comparison)
def render_comparison(found: Comparison) -> RenderableType:
    """Return what was compared, the arms with their intervals, differences, verdicts and notes."""
    arms = table(_ARMS, map(_arm, found.arms), note=_arms_note(found))
    heading_of = f"{found.name}: {found.question}" if found.question else f"Comparison: {heading(found)}"
    return sections(
        title(heading_of),
        facts(facts_of(found)),
        _own(found),
        arms,
        table((f"Against {found.baseline}", *_DIFFERENCES), _differences(found), note=_TESTED)
        if found.differences
        else None,
        *(_verdict(verdict) for verdict in found.verdicts),
        label("Claims are judged one by one, without a correction for their number.", "dim")
        if len(found.verdicts) > 1
        else None,
        label(found.scale) if found.scale else None,
        facts([("note", note) for note in found.notes]) if found.notes else None,
        facts(_facts(found)),
    )


def _own(found: Comparison) -> RenderableType | None:
    """What each arm has of its own, where the arms' names don't say it."""
    same = compared(found.arms)
    if same.named:
        return None
    rows = [(name, listed(own) or "the defaults") for name, own in same.own.items()]
    return table(("Arm", "Its own"), rows)


def _arm(arm: ArmResult) -> tuple[object, ...]:
    error, gap = arm.final_error, arm.gap
    return (
        arm.name,
        percent(error.mean) if error else MISSING,
        span(error, "percent"),
        written(gap, "points").removesuffix(" points"),
        _reached(arm.reached),
        str(arm.num_diverged),
    )


def _reached(reached: Reached) -> str:
    """The median of the steps, and how many of the runs reached the target."""
    if not reached.num_runs:
        return MISSING
    median = "never" if not reached.num_reached else MISSING if reached.median is None else ""
    steps = median or number(reached.median or 0)
    return f"{steps} ({reached.num_reached}/{reached.num_runs})"


def _arms_note(found: Comparison) -> str:
    return " ".join(part for part in (caution(found), _target_note(found)) if part)


def _target_note(found: Comparison) -> str:
    if found.target is None:
        return ""
    whence = "given" if found.target_is_given else f"what {found.baseline!r} reaches in half of its seeds"
    return (
        f"Target: {percent(found.target)} of validation images wrong ({whence}); steps are the median, a run "
        "that never reached it counting as later than all; in brackets how many reached it. "
        "A diverged run counts as guessing. Final error: mean over seeds with a 95 % t interval. Gap: final "
        "error minus training error."
    )


def _differences(found: Comparison) -> Iterator[Sequence[object]]:
    for arm in found.arms:
        own = {each.quantity: each for each in found.differences if each.arm == arm.name}
        if own:
            error, steps = own["final_error"], own["steps_to_target"]
            yield (
                arm.name,
                written(error.interval, "points").removesuffix(" points"),
                span(error.interval, "points"),
                MISSING if error.p is None else f"{error.p:.3f}",
                bounded(steps.interval, "ratio", steps.bound),
                "established" if error.is_established else "open",
            )


def _verdict(verdict: Verdict) -> RenderableType:
    claim = verdict.claim
    head = label(f"{verdict.verdict}: ", _STYLES.get(verdict.verdict, "bold yellow"))
    head.append_text(label(claim.statement))
    rows = [("here", written_verdict(verdict)), ("why", verdict.sentence)]
    if claim.published:
        rows.append(("published", f"{claim.published.figure} ({claim.published.source})"))
    if claim.concludes:
        rows.append(("concludes", claim.concludes))
    return Group(head, facts(rows))


def _facts(found: Comparison) -> list[tuple[str, str]]:
    spent = sum(run.seconds for arm in found.arms for run in arm.runs)
    return [
        ("seeds", ", ".join(map(str, found.seeds))),
        ("time", f"{seconds(spent)} of training in all"),
        ("machine", found.made.machine),
        ("folder", found.folder),
    ]


@renders(ComparisonForecast)
def render_comparison_forecast(found: ComparisonForecast) -> RenderableType:
    """Return what the runs of a table will take."""
    steps = [
        (
            probe.arm,
            probe.batch_size,
            seconds(probe.step_seconds),
            seconds(probe.evaluation_seconds),
            format_bytes(probe.memory_bytes),
        )
        for probe in found.probes
    ]
    memory = format_bytes(found.memory_bytes)
    if found.available_bytes is not None:
        memory += f" of {format_bytes(found.available_bytes)} available"
        memory += "; that may not fit" if found.memory_bytes > found.available_bytes else ""
    return sections(
        title(f"Forecast: {found.runs_left} of {found.runs} runs left, {found.steps_left:,} steps"),
        table(("Measured on", "Batch#", "Step#", "Evaluation#", "Memory#"), steps) if steps else None,
        facts(
            [
                ("time", _time(found)),
                ("disk", f"{format_bytes(found.disk_bytes)} of {format_bytes(found.free_bytes)} free"),
                ("memory", memory),
                *(
                    ("alike", f"{one} and {other} compute the same: does the network use what differs?")
                    for one, other in found.alike
                ),
            ]
        ),
    )


def _time(found: ComparisonForecast) -> str:
    several = found.processes > 1
    parts = [f"about {seconds(found.seconds)}, {found.processes if several else 'one'} "
             f"{'runs' if several else 'run'} at a time"]  # fmt: skip
    if found.start_seconds:
        parts.append(f"{seconds(found.start_seconds)} of it until a process has started and read its images")
    if several:
        parts.append("longer if they slow one another down: a single one was measured")
    return "; ".join(parts)

"""The fold's ledger, its proof and the speed in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.fold import Folded, Ledger, LedgerEntry, Speed
from convscope.report.formats import counted, error, joined, ratio, seconds, write
from convscope.report.terminal.tables import facts, sections, table, title

_COLUMNS = ("Batch norm", "Verdict", "Into", "Difference#", "Weights × at most#", "Remark")


@renders(Ledger)
def render_ledger(ledger: Ledger) -> RenderableType:
    """Return where every batch norm went."""
    counts = f"{ledger.folded} folded, {ledger.merged} merged, {ledger.partial} partial, {ledger.kept} kept"
    note = "difference: relative, in float64, at this place"
    return sections(
        title(f"{counted(len(ledger), 'batch norms')}: {counts}"),
        table(_COLUMNS, map(_row, ledger.entries), note=note) if ledger.entries else None,
    )


@renders(Folded)
def render_folded(folded: Folded) -> RenderableType:
    """Return the ledger, the proof, and the speed if it was measured."""
    proof = folded.proof
    shown = [(f"largest difference in {each.dtype}", error(each.max_error)) for each in proof.errors]
    verdict = "equal" if proof.passed else "NOT equal"
    shown += [
        ("allowed in float64", error(proof.threshold)),
        ("proof", f"{verdict}: {proof.method}"),
        ("inputs", joined(proof.trials) or "none"),
    ]
    return sections(
        render_ledger(folded.ledger), facts(shown), render_speed(folded.speed) if folded.speed else None
    )


@renders(Speed)
def render_speed(speed: Speed) -> RenderableType:
    """Return the time of a forward pass before and after."""

    def quartiles(timing: object) -> str:
        low, median, high = (seconds(getattr(timing, name)) for name in ("low", "median", "high"))
        return f"{median} (quartiles {low} to {high})"

    where = f"{speed.repeats} passes each on {speed.device}, {counted(speed.num_threads, 'threads')}"
    return facts(
        (
            ("before", quartiles(speed.before)),
            ("after", quartiles(speed.after)),
            ("speed", _compared(speed)),
            ("measured", where),
            ("inputs", joined(speed.input_shape)),
            ("method", speed.method),
        )
    )


def _compared(speed: Speed) -> str:
    quartiles = f"{ratio(speed.speedup)} ({ratio(speed.speedup_low)} to {ratio(speed.speedup_high)})"
    clear = not speed.speedup_low <= 1 <= speed.speedup_high
    return quartiles if clear else f"{quartiles}: no difference stands out"


def _row(entry: LedgerEntry) -> tuple[object, ...]:
    return (
        entry.address,
        entry.verdict,
        entry.into,
        write("error", entry.max_error),
        write("number", entry.magnification),
        entry.reason,
    )

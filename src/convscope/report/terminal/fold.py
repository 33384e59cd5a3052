"""The fold's ledger, its proof, the speed and written files in the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.fold import Folded, Ledger, LedgerEntry, Speed, Timing
from convscope.fold.export.result import Exported
from convscope.fold.ledger import Proof
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.formats import counted, error, joined, ratio, seconds, shape, write
from convscope.report.wording.ledger_groups import Block, blocks, by_reason, gone, left, names, words

_MOST_ROWS = 60
_MOST_BLOCKS = 40
_COLUMNS = ("Batch norm", "Verdict", "Into", "Difference#", "Weights × at most#", "Remark")
_BLOCK_COLUMNS = ("Batch norms in", "Folded#", "Merged#", "Difference#", "Weights × at most#")
_NOTE = (
    "difference: relative, in float64, at this place; "
    "weights ×: the largest factor |gamma| / sqrt(var + eps) on a channel's weights"
)
_BLOCK_NOTE = f"{_NOTE}; of each part, the largest. Every batch norm: --json, folded.ledger.entries"
_MERGED = "merged branches save convolutions, which the twin still has"
_NO_BATCH_NORM = "the network has no batch norm"


@renders(Ledger)
def render_ledger(ledger: Ledger) -> RenderableType:
    """Return the counts, what stayed and why, and where the others went."""
    return sections(title(_counts(ledger)), *_where(ledger))


@renders(Folded)
def render_folded(folded: Folded) -> RenderableType:
    """Return the counts and the proof's verdict, the ledger, the proof, and the speed if it was measured."""
    head: list[RenderableType] = [title(_counts(folded.ledger))]
    proof = None
    if folded.ledger.entries:
        head.append(label(_verdict(folded.proof)))
        proof = facts(_proof(folded.proof))
    speed = _speed(folded.speed, with_merged=folded.ledger.merged > 0) if folded.speed else None
    return sections(Group(*head), *_where(folded.ledger), proof, speed)


@renders(Speed)
def render_speed(speed: Speed) -> RenderableType:
    """Return the time of a forward pass before, after, and of the twin without batch norm."""
    return _speed(speed, with_merged=False)


def _speed(speed: Speed, *, with_merged: bool) -> RenderableType:
    merged = f"; {_MERGED}" if with_merged and speed.twin else ""
    twin = [("twin", f"{_quartiles(speed.twin)}, without any batch norm")] if speed.twin else []
    return facts(
        [
            ("before", _quartiles(speed.before)),
            ("after", _quartiles(speed.after)),
            *twin,
            ("speed", _compared(speed)),
            ("after ÷ twin", _to_twin(speed) + merged),
            (
                "measured",
                f"{speed.repeats} passes each on {speed.device}, {counted(speed.num_threads, 'threads')}",
            ),
            ("inputs", joined(speed.input_shape)),
            ("method", speed.method),
        ]
    )


@renders(Exported)
def render_exported(exported: Exported) -> RenderableType:
    """Return what was written, and how it was checked."""
    size = format_bytes(exported.num_bytes)
    if exported.max_error is None:
        checked = "NOT checked: onnxruntime isn't installed"
    else:
        checked = (
            f"its outputs differ from the original's by at most {error(exported.max_error)} "
            f"({error(exported.allowed)} allowed), checked with {exported.checked_with}"
        )
    return label(f"{exported.path} written, {size}, {_takes(exported)}; {checked}")


def _takes(exported: Exported) -> str:
    """What inputs a file takes, in words."""
    if not exported.sizes:
        return "weights alone"
    fixed = [shape([size for size in sizes if size is not None]) for sizes in exported.sizes]
    if not exported.any_batch:
        return f"inputs of {' and '.join(fixed)} only"
    samples = [text for text, sizes in zip(fixed, exported.sizes, strict=True) if None in sizes]
    others = [text for text, sizes in zip(fixed, exported.sizes, strict=True) if None not in sizes]
    beside = f", beside {' and '.join(others)}" if others else ""
    return f"any number of samples of {' and '.join(samples)}{beside}"


def _counts(ledger: Ledger) -> str:
    if not ledger.entries:
        return _NO_BATCH_NORM
    counts = f"{ledger.folded} folded, {ledger.merged} merged, {ledger.partial} partial, {ledger.kept} kept"
    return f"{counted(len(ledger), 'batch norms')}: {counts}"


def _verdict(proof: Proof) -> str:
    if not proof.trials:
        return "nothing was folded"
    errors = ", ".join(f"{error(each.max_error)} in {each.dtype}" for each in proof.errors)
    return f"outputs {'equal' if proof.passed else 'NOT equal'}: they differ by at most {errors}"


def _where(ledger: Ledger) -> list[RenderableType]:
    """What stayed, then where the others went."""
    stayed, went = by_reason(left(ledger), words), gone(ledger)
    shown: list[RenderableType] = []
    if stayed:
        shown.append(Group(title("Still there"), *map(_alike, stayed)))
    if len(went) > _MOST_ROWS:
        rows = map(_block, blocks(went, _MOST_BLOCKS))
        shown.append(Group(title("Gone"), table(_BLOCK_COLUMNS, rows, note=_BLOCK_NOTE)))
        went = tuple(entry for entry in went if entry.reason)
    if went:
        shown.append(table(_COLUMNS, map(_row, went), note=_NOTE))
    return shown


def _alike(entries: Sequence[LedgerEntry]) -> RenderableType:
    first, others = entries[0], len(entries) - 1
    where = names(entry.address for entry in entries)
    lines = [first.reason + (f"; {counted(others, 'others')} likewise" if others else "")]
    lines += [f"Into: {first.into}"] if first.into else []
    lines += [f"What would fold it: {first.remedy}"] if first.remedy else []
    return Group(label(f"{first.verdict}: {where}"), *(Padding(label(line), (0, 0, 0, 3)) for line in lines))


def _row(entry: LedgerEntry) -> tuple[object, ...]:
    return (
        entry.address,
        entry.verdict,
        entry.into,
        write("error", entry.max_error),
        write("number", entry.magnification),
        entry.reason,
    )


def _block(block: Block) -> tuple[object, ...]:
    return (
        block.path,
        block.count("folded"),
        block.count("merged"),
        write("error", block.largest("max_error")),
        write("number", block.largest("magnification")),
    )


def _proof(proof: Proof) -> list[tuple[str, str]]:
    if not proof.trials:
        return [("proof", proof.method)]
    return [
        ("allowed in float64", error(proof.threshold)),
        ("proof", f"{'equal' if proof.passed else 'NOT equal'}: {proof.method}"),
        ("inputs", joined(proof.trials)),
    ]


def _quartiles(timing: Timing) -> str:
    return f"{seconds(timing.median)} (quartiles {seconds(timing.low)} to {seconds(timing.high)})"


def _compared(speed: Speed) -> str:
    quartiles = f"{ratio(speed.speedup)} ({ratio(speed.speedup_low)} to {ratio(speed.speedup_high)})"
    clear = not speed.speedup_low <= 1 <= speed.speedup_high
    return quartiles if clear else f"{quartiles}: no difference stands out"


def _to_twin(speed: Speed) -> str:
    if speed.ratio_to_twin is None or speed.ratio_to_twin_low is None or speed.ratio_to_twin_high is None:
        return f"there is no twin without batch norm: {speed.no_twin}"
    low, high = speed.ratio_to_twin_low, speed.ratio_to_twin_high
    quartiles = f"{ratio(speed.ratio_to_twin)} the time ({ratio(low)} to {ratio(high)})"
    return quartiles if not low <= 1 <= high else f"{quartiles}: no difference stands out"

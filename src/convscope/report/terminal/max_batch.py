"""The largest batch that fits, in the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.cost.batch.search import WINDOW
from convscope.cost.batch.values import BatchBound, LargestBatch
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.formats import exact, joined, percent, write

_COLUMNS = ("", "Batch#", "Stops at#", "×8#", "Allocated#", "Reserved#", "PyTorch may take#", "Per item#",
            "Assumes")  # fmt: skip
_WORKSPACES = {
    "none": "no workspaces",
    "where they fit": "workspaces where they fit",
    "all": "room for the largest workspaces",
}
_ABOVE = {
    "tensors": "the tensors alone are too large",
    "more hopeful answer": "batches that don't fit there weren't tried here",
    "max_batch": "batches weren't tried (--most)",
}
_BOUND = {
    "activations": "activation-bound: a smaller input, lower precision, in-place or checkpointed layers help",
    "parameters": "parameter-bound: most of it doesn't grow with the batch; fewer parameters help",
    "optimizer": "optimizer-bound: the peak is in its step; fused kernels or fewer states per parameter help",
}


@renders(LargestBatch)
def render_largest_batch(found: LargestBatch) -> RenderableType:
    """Return the three answers with their forecasts and assumptions, what binds, and how it was found."""
    answers = (("safe", found.safe), ("likely", found.likely), ("optimistic", found.optimistic))
    memory = format_bytes(found.memory_bytes)
    place = found.device if found.gpu is None else f"{found.device} ({found.gpu})"
    return sections(
        title(f"{found.network}: the largest batch in {memory} on {place}, {found.plan}"),
        table(
            _COLUMNS,
            (_row(name, bound, found.device) for name, bound in answers),
            note="bytes at the batch named; stops at: the first larger batch that doesn't fit; "
            "×8: the largest multiple of eight; 1 MiB = 1,048,576 B",
        ),
        facts((*_binds(found), *_remarks(found, answers))),
    )


def _row(name: str, bound: BatchBound, device: str) -> tuple[object, ...]:
    return (
        name,
        exact(bound.batch) if bound.batch else "none",
        write("exact", bound.stops_at),
        write("exact", bound.multiple_of_8 or None),
        write("bytes", bound.allocated_peak_bytes),
        write("bytes", bound.reserved_peak_bytes),
        format_bytes(bound.capacity_bytes),
        write("bytes", bound.bytes_per_item),
        _assumed(bound, device),
    )


def _assumed(bound: BatchBound, device: str) -> str:
    assumed = bound.assumptions
    parts = []
    if device == "cuda":
        parts = [_WORKSPACES[assumed.workspaces], f"context {format_bytes(assumed.context_bytes)}"]
    if assumed.margin_bytes:
        parts.append(f"{format_bytes(assumed.margin_bytes)} left free")
    return joined(parts)


def _binds(found: LargestBatch) -> Iterator[tuple[str, str]]:
    binds = found.binds
    alive = binds.growing_bytes + binds.fixed_bytes
    share = percent(binds.growing_bytes / alive) if alive else "none"
    growing, fixed = format_bytes(binds.growing_bytes), format_bytes(binds.fixed_bytes)
    yield "what binds", _BOUND[binds.kind]
    yield (
        "at its peak",
        f"batch {exact(binds.batch)}, in {binds.phase} at {binds.op}: {growing} ({share}) of "
        f"{format_bytes(alive)} in tensors grow with the batch, {fixed} don't",
    )
    yield (
        "alive there",
        joined([f"{role} {format_bytes(size)}" for role, size in binds.live_by_role.items() if size]),
    )


def _remarks(found: LargestBatch, answers: tuple[tuple[str, BatchBound], ...]) -> Iterator[tuple[str, str]]:
    if not found.optimistic.batch:
        needed = format_bytes(found.needed_bytes)
        yield "no batch fits", f"a batch of {found.smallest_batch} needs at least {needed}"
    for name, bound in answers:
        if bound.holes:
            yield (
                name,
                f"of the {WINDOW} batches below, these don't fit (the memory is in pieces there): "
                f"{joined(bound.holes)}; batches below those may not fit either",
            )
        if not bound.exact:
            stretch = f"between {exact(bound.batch + WINDOW)} and {exact(bound.bound)}"
            yield name, f"{stretch} not every batch was tried; above, {_ABOVE[bound.bound_by]}"
        elif bound.bound_by == "more hopeful answer" and bound.stops_at not in (None, bound.batch + 1):
            yield name, f"as many as in the more hopeful answer below: {_ABOVE[bound.bound_by]}"
    capped = [name for name, each in answers if each.bound_by == "max_batch" and each.batch == each.bound]
    if capped:
        most = f"--most {exact(found.max_batch)} (max_batch)"
        yield joined(capped), f"the search ends at {most}, which fits: larger batches weren't tried"
    if found.stride > 1:
        yield "only multiples", f"of {exact(found.stride)} were looked at: the network refuses other batches"
    if found.recorded_because:
        yield "method", f"every batch was recorded, because {found.recorded_because}"
    elif found.checked:
        batches = joined([exact(batch) for batch in found.checked])
        yield "method", f"derived from recordings at two batches, equal to recordings at {batches}"

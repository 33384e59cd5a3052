"""The largest batch that fits, in the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes, size_to_give
from convscope.cost.batch.search import WINDOW
from convscope.cost.batch.values import BatchBound, Binding, LargestBatch
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
    "tensors": "the tensors alone need more than there is",
    "more hopeful answer": "none fits even under the row below",
    "max_batch": "none was to be tried (--most)",
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
        f"{format_bytes(alive)} in tensors grow with the batch, {fixed} don't{_beside(binds)}",
    )
    yield (
        "alive there",
        joined([f"{role} {format_bytes(size)}" for role, size in binds.live_by_role.items() if size]),
    )


def _beside(binds: Binding) -> str:
    """What the allocated bytes are beside those of tensors."""
    if binds.workspace_bytes <= 0:
        return ""
    return f"; beside them {format_bytes(binds.workspace_bytes)} of workspaces and remainders not split off"


def _from_what_on(found: LargestBatch) -> str:
    """What the smallest batch needs, as it can be given to the same search."""
    decides = "under the likely answer, which decides (exit code 1)"
    if found.max_batch < found.smallest_batch:
        return f"{decides}: the smallest that runs is {found.smallest_batch}, above --most {found.max_batch}"
    context = found.likely.assumptions.context_bytes
    beside = f", the CUDA context {format_bytes(context)}" if context and found.device == "cuda" else ""
    enough, states = size_to_give(found.needed_bytes), found.plan != "inference"
    takes = "the network and its optimizer's states take" if states else "the network takes"
    return (
        f"{decides}: there a batch of {found.smallest_batch} fits from {enough} on; "
        f"{takes} {format_bytes(found.standing_bytes)}{beside}"
    )


def _remarks(found: LargestBatch, answers: tuple[tuple[str, BatchBound], ...]) -> Iterator[tuple[str, str]]:
    if not found.fits:
        yield "no batch fits", _from_what_on(found)
    for name, bound in answers:
        if bound.holes:
            yield (
                name,
                f"of the {WINDOW} batches below, these don't fit (the memory is in pieces there): "
                f"{joined(bound.holes)}; batches below those may not fit either",
            )
        if not bound.exact:
            yield (
                name,
                f"{exact(bound.batch)} fits and the next {WINDOW} batches don't; a larger one up to "
                f"{exact(bound.bound)} may fit, as not all of them were tried; above {exact(bound.bound)} "
                f"{_ABOVE[bound.bound_by]}",
            )
        elif bound.bound_by == "more hopeful answer" and bound.stops_at not in (None, bound.batch + 1):
            yield name, "the same batch as in the row below: no larger one fits there, so none was tried here"
    capped = [name for name, each in answers if each.bound_by == "max_batch" and each.batch == each.bound]
    if capped:
        most = f"--most {exact(found.max_batch)} (max_batch)"
        yield joined(capped), f"the search ends at {most}, which fits: larger batches weren't tried"
    for text in found.assumptions:
        yield "assumed", text
    if found.stride > 1:
        yield "only multiples", f"of {exact(found.stride)} were looked at: the network refuses other batches"
    if found.recorded_because:
        yield "method", f"every batch was recorded, because {found.recorded_because}"
    elif found.checked:
        batches = joined([exact(batch) for batch in found.checked])
        yield "method", f"derived from recordings at two batches, equal to recordings at {batches}"

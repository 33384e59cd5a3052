"""Which candidates stand together: a module is exchanged for all of its calls, or for none."""

from collections import Counter
from collections.abc import Iterable

from convscope.fold.merge.candidate import Candidate
from convscope.fold.merge.constants import Run
from convscope.fold.merge.terms import signature
from convscope.fold.recorded.flow import addresses, path_of


def agreeing(run: Run, candidates: Iterable[Candidate]) -> tuple[list[Candidate], dict[int, str]]:
    """Return the candidates that can all be carried out, and why the others can't.

    Args:
        run: the recorded run.
        candidates: what can be merged, call by call.

    Returns:
        The candidates in their order, and the reason for every operator call of the others, by its index.
    """
    left = list(candidates)
    refused: dict[int, str] = {}
    while True:
        exchanged = _exchanged(run, left)
        gone = {call.index for candidate in left for call in candidate.gone}
        reasons = [_why_not(run, candidate, exchanged, gone) for candidate in left]
        for candidate, reason in zip(left, reasons, strict=True):
            if reason:
                refused.update((call.index, reason) for call in candidate.gone)
        if not any(reasons):
            return left, refused
        left = [candidate for candidate, reason in zip(left, reasons, strict=True) if not reason]


def together(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return the candidates in groups that exchange modules of their own."""
    groups: dict[int, list[Candidate]] = {}
    by_path: dict[str, int] = {}
    for number, candidate in enumerate(candidates):
        paths = [path_of(call) for call in candidate.exchanged]
        joined = {by_path[path] for path in paths if path in by_path}
        group = [candidate]
        for other in sorted(joined, reverse=True):
            group = groups.pop(other) + group
        groups[number] = group
        by_path.update((path_of(call), number) for member in group for call in member.exchanged)
    return list(groups.values())


_Exchanged = dict[str, Counter[object]]


def _exchanged(run: Run, candidates: list[Candidate]) -> _Exchanged:
    """For every module that is exchanged, how many of its calls are exchanged for what."""
    exchanged: _Exchanged = {}
    for candidate in candidates:
        for path, becomes in _roles(run, candidate):
            exchanged.setdefault(path, Counter())[becomes] += 1
    return exchanged


def _roles(run: Run, candidate: Candidate) -> list[tuple[str, object]]:
    chain = candidate.whole
    around = () if chain is None else tuple(path_of(call) for call in (*chain.before, *chain.after))
    computes = (candidate.name, around, signature(run, candidate.tree))
    return [(path_of(candidate.place), computes), *((path_of(call), None) for call in candidate.others)]


def _why_not(run: Run, candidate: Candidate, exchanged: _Exchanged, gone: set[int]) -> str:
    for call in candidate.exchanged:
        alike = exchanged[path_of(call)]
        if len(alike) > 1 or alike.total() < len(run.calls_of_module(path_of(call))):
            return f"{call.address.path} is called more than once, and not all of its calls merge alike"
    for made in candidate.gone:
        for value in made.inputs:
            if not run.is_constant(value):
                continue
            others = [reader for reader in run.readers_of_storage(value) if reader.index not in gone]
            if others:
                return f"{run.slots_of(value)[0].name} is also read by {addresses(others)}"
    return ""

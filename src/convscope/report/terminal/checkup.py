"""The check-up in the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial

from rich.console import Group, RenderableType
from rich.padding import Padding

from convscope.checkup import Checkup
from convscope.checkup.observed import LayerGap
from convscope.checkup.result import StateProof
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Finding
from convscope.core.result import renders
from convscope.report.terminal.fitting import Fitting
from convscope.report.terminal.tables import facts, finding, label, sections, table, title
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import counted, with_error
from convscope.report.wording.given import given_facts
from convscope.report.wording.losses import loss, loss_in
from convscope.report.wording.norms_grid import OPTIONAL, norms_grid

_NAMED = 6  # places that are named one by one

_OVERLAP = "loss in evaluation mode minus that with this layer switched; shares overlap and don't add up"
_SHARED = "shared-over-domains"


@renders(Checkup)
def render_checkup(checkup: Checkup) -> RenderableType:
    """Return the gap, the findings, the table of batch norms, what couldn't be checked, and the proof."""
    nothing = "nothing to say: no fault was found" if checkup.layers else "there is nothing to check"
    return sections(
        title(_heading(checkup)),
        facts(given_facts(checkup)) if checkup.given else None,
        _gap(checkup),
        _findings(checkup.findings) if checkup.findings else label(nothing, "dim"),
        _more(checkup),
        _shares(checkup),
        _layers(checkup),
        _lines(_of_several(checkup)),
        _lines(f"expected: {fault} at {places}" for fault, places in _declared(checkup.expected)),
        _lines(f"not checked: {what}: {reason}" for what, reason in _unchecked(checkup.unchecked)),
        unchanged(checkup.state, "the check-up"),
    )


def _heading(checkup: Checkup) -> str:
    if not checkup.layers:
        return "This network has no batch norm"
    where = {
        "static": "no data",
        "data": f"{counted(checkup.num_samples, 'samples')} in {counted(checkup.num_batches, 'batches')}",
        "training": "a watched training run",
    }
    return f"Check-up of {counted(len(checkup.layers), 'batch norms')} ({where[checkup.depth]})"


def _findings(found: tuple[Finding, ...]) -> RenderableType:
    """Return the findings; of those of one fault the one of largest effect, and where the others are."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for each in found:
        alike.setdefault((each.fault, each.severity), []).append(each)
    parts: list[RenderableType] = []
    remedies: set[tuple[str, str]] = set()
    for first, *others in alike.values():
        told = (first.fault, first.remedy) in remedies
        remedies.add((first.fault, first.remedy))
        parts.append(finding(replace(first, remedy="the same as above") if told else first))
        if others:
            ordered = len({each.effect for each in (first, *others)}) > 1
            places = _places([each.address for each in others])
            same = f"The same{', by falling effect,' if ordered else ''} at {places}"
            parts.append(Padding(label(same, "dim"), (0, 0, 0, 3)))
    return Group(*parts)


def _places(addresses: list[str]) -> str:
    """Name the first few addresses, and say how many more there are."""
    named, left = ", ".join(addresses[:_NAMED]), len(addresses) - _NAMED
    return f"{named} and {left} more (--json has all)" if left > 0 else named


def _declared(found: tuple[Finding, ...]) -> Iterator[tuple[str, str]]:
    """Each fault that was declared, and its places."""
    places: dict[str, list[str]] = {}
    for each in found:
        places.setdefault(each.fault, []).append(each.address)
    return ((fault, _places(addresses)) for fault, addresses in places.items())


def _unchecked(notes: tuple[Unchecked, ...]) -> Iterator[tuple[str, str]]:
    """Each kind of thing that couldn't be checked for one reason, and its places."""
    places: dict[tuple[str, str], list[str]] = {}
    for each in notes:
        kind, _, place = each.what.partition(" at ")
        places.setdefault((kind if place else "", each.reason), []).append(place or each.what)
    for (kind, reason), names in places.items():
        yield f"{kind} at {_places(names)}" if kind else _places(names), reason


def _more(checkup: Checkup) -> RenderableType | None:
    """How to read more about each kind of finding."""
    return _lines(f"More: {page}" for page in dict.fromkeys(each.page for each in checkup.findings) if page)


def _lines(texts: Iterable[str]) -> RenderableType | None:
    lines = [label(text, "dim") for text in texts]
    return Group(*lines) if lines else None


def unchanged(state: StateProof | None, during: str, after: str = "after") -> RenderableType | None:
    """Return the line which says what a model's hashes from before and after say; None without them.

    Args:
        state: the hashes.
        during: what was done in between.
        after: until when.
    """
    if state is None:
        return None
    names = [field.name for field in fields(state.before)]
    changed = [name for name in names if getattr(state.before, name) != getattr(state.after, name)]
    if changed:
        return label(f"your model has changed during {during}: {', '.join(changed)}", "bold red")
    what = f"{', '.join(names[:-1])} and random generators"
    return label(f"your model is unchanged: {what} have the same hashes before and {after}", "dim")


def _of_several(checkup: Checkup) -> Iterator[str]:
    """What stale channels are of, in the rows of a batch norm whose calls differ."""
    shared = {each.address.partition("#")[0] for each in checkup.findings if each.fault == _SHARED}
    for path in dict.fromkeys(layer.path for layer in checkup.layers if layer.path in shared):
        rows = [layer for layer in checkup.layers if layer.path == path]
        if any(layer.stale_channels for layer in rows):
            yield (
                f"stale at {', '.join(layer.address for layer in rows)}: one layer, whose running statistics "
                f"are a mixture of its calls ({_SHARED})"
            )


def _shares(checkup: Checkup) -> RenderableType | None:
    """The table of what each layer takes of the gap."""
    if not checkup.attribution:
        return None
    columns = ("Batch norm on batch statistics", f"takes of the gap, {loss_in(checkup.loss_unit)}#", "")
    return table(columns, map(_share, checkup.attribution), note=_OVERLAP)


def _share(share: LayerGap) -> tuple[object, ...]:
    return (
        share.path,
        with_error(share.difference, share.error),
        "misled by a layer before it" if share.misled else "",
    )


def _gap(checkup: Checkup) -> RenderableType | None:
    if checkup.gap is None:
        return None
    of = (("the loss", f"is that of {checkup.loss_of}"),) if checkup.loss_of else ()
    unit = checkup.loss_unit
    return facts(
        (
            *of,
            ("loss with running statistics", loss(checkup.eval_loss, unit)),
            ("loss with batch statistics", loss(checkup.batch_loss, unit)),
            ("gap, the first minus the second", loss(checkup.gap, unit, checkup.gap_error)),
        )
    )


def _layers(checkup: Checkup) -> RenderableType | None:
    """The table of batch norms, with as many of its columns as there is room for."""
    if not checkup.layers:
        return None
    ways = range(len(OPTIONAL) + 1)
    return Fitting([partial(_grids, checkup, OPTIONAL[:number]) for number in ways])


def _grids(checkup: Checkup, hidden: Sequence[str]) -> list[Grid]:
    return [norms_grid(checkup.layers, hidden)]

"""``convscope checkup --explain``: the pages about faults, set for reading."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markdown import Markdown

from convscope.cli.show import draw, show
from convscope.core.result import Result

_WIDTH = 100  # of prose where the output isn't a terminal


@dataclass(frozen=True)
class Explained:
    """What is known of a fault.

    Attributes:
        name: of the fault.
        summary: a line about it.
        page: the page about it, in Markdown; None where all faults are listed.
    """

    name: str
    summary: str
    page: str | None


@dataclass(frozen=True)
class Explanations(Result):
    """The pages that were asked for, or all faults in a line each."""

    faults: tuple[Explained, ...]


def explain(faults: Sequence[str], *, as_json: bool = False) -> None:
    """Print the pages about faults; without a name all faults, a line each.

    Args:
        faults: their names.
        as_json: print them as JSON.

    Raises:
        ConvscopeError: there is no page about such a fault.
    """
    from convscope.checkup.explain import page_names, page_of, summary_of

    if as_json:
        told = [Explained(name, summary_of(name), page_of(name)) for name in faults]
        told = told or [Explained(name, summary_of(name), None) for name in page_names()]
        show(Explanations(tuple(told)), as_json=True)
        return
    if not faults:
        draw(_every(), _WIDTH)
    for page in [page_of(fault) for fault in faults]:
        draw(Markdown(page), _WIDTH)


def _every() -> RenderableType:
    from convscope.checkup.explain import page_names, summary_of
    from convscope.report.terminal.tables import facts, label

    pairs = [(fault, summary_of(fault)) for fault in page_names()]
    return Group(facts(pairs), label("\nThe page about one: convscope checkup --explain FAULT", "dim"))

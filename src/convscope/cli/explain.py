"""``convscope checkup --explain``: the pages about faults, set for reading."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markdown import Markdown

from convscope.cli.show import draw

_WIDTH = 100  # of prose where the output isn't a terminal


def explain(faults: Sequence[str]) -> None:
    """Print the pages about faults; without a name all faults, a line each.

    Raises:
        ConvscopeError: there is no page about such a fault.
    """
    from convscope.checkup.explain import page_of

    if not faults:
        draw(_every(), _WIDTH)
    for page in [page_of(fault) for fault in faults]:
        draw(Markdown(page), _WIDTH)


def _every() -> RenderableType:
    from convscope.checkup.explain import page_names, summary_of
    from convscope.report.terminal.tables import facts, label

    pairs = [(fault, summary_of(fault)) for fault in page_names()]
    return Group(facts(pairs), label("\nThe page about one: convscope checkup --explain FAULT", "dim"))

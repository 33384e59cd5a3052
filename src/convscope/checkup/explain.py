"""The page about each fault: what it is, how it shows, how it is measured, and how to mend it."""

from difflib import get_close_matches
from importlib.resources import files

from convscope.core.errors import ConvscopeError

_PAGES = files("convscope.checkup").joinpath("pages")
_SUFFIX = ".md"


def page_names() -> tuple[str, ...]:
    """Return the faults that there is a page about, in alphabetical order."""
    names = (page.name for page in _PAGES.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def summary_of(fault: str) -> str:
    """Return in a few words what a fault is.

    Args:
        fault: one of :func:`page_names`.

    Example:
        >>> summary_of("momentum-convention")
        'the newest batch outweighs all others'
    """
    return page_of(fault).partition("\n")[0].partition(":")[2].strip()


def page_of(fault: str) -> str:
    """Return the page about a fault, as Markdown.

    Args:
        fault: its id, which findings carry.

    Raises:
        ConvscopeError: there is no page about such a fault; faults that a user adds have none.

    Example:
        >>> print(page_of("momentum-convention").splitlines()[0])
        # momentum-convention: the newest batch outweighs all others
    """
    names = page_names()
    if fault not in names:
        near = get_close_matches(fault, names, n=1)
        raise ConvscopeError(
            f"no page about the fault {fault!r}",
            f"one of {len(names)} faults, which convscope checkup --explain lists",
            f"did you mean {near[0]!r}?" if near else "check the name",
        )
    return _PAGES.joinpath(fault + _SUFFIX).read_text(encoding="utf-8")

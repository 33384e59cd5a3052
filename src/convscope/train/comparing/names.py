"""Names that aren't known, and the nearest that are."""

import difflib
from collections.abc import Iterable

from convscope.core.errors import ConvscopeError


def advice(name: str, names: Iterable[str], otherwise: str = "correct the name, or leave it out") -> str:
    """Return a question with the nearest names; other advice where none is near.

    Example:
        >>> advice("epohs", ["epochs", "seed"])
        "did you mean 'epochs'?"
    """
    close = difflib.get_close_matches(str(name).lower(), list(names), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else otherwise


def unknown_arm(name: str, names: Iterable[str]) -> ConvscopeError:
    """Return what is to be raised of an arm that there isn't: the names that there are, and the nearest."""
    known = list(names)
    told = ", ".join(map(repr, known))
    return ConvscopeError(f"arm {name!r}", f"one of {told}", advice(name, known, "correct the name"))

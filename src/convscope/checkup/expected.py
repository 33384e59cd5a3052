"""Faults that are there on purpose: declared by the user, and reported apart from the findings."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase

from convscope.checkup.judging.faults import fault_names
from convscope.core.errors import ConvscopeError

_DECLARED: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("declared", default=())


@contextmanager
def expected(*faults: str, at: str = "*") -> Iterator[None]:
    """Declare faults that are there on purpose, for check-ups and watched events within the block.

    Their findings go to ``Checkup.expected`` instead of ``Checkup.findings``. Within a watched training loop
    an event that happens in the block, such as an evaluation in training mode for Monte-Carlo dropout, isn't
    held against the run; and a declaration that held in at least half of its steps holds for its check-up.

    Args:
        *faults: names of faults, of :func:`convscope.checkup.fault_names`.
        at: pattern of module paths or addresses that they are expected at, such as ``"backbone.*"``.

    Raises:
        ConvscopeError: there is no fault of such a name, or none was given.

    Example:
        >>> from convscope.checkup import checkup
        >>> from torch import nn
        >>> with expected("young-statistics", at="0"):
        ...     found = checkup(nn.Sequential(nn.BatchNorm2d(3)))
        >>> [finding.fault for finding in found.findings], [finding.fault for finding in found.expected]
        ([], ['young-statistics'])
    """
    known = fault_names()
    if not faults or set(faults) - set(known):
        unknown = ", ".join(repr(name) for name in faults if name not in known) or "no fault"
        raise ConvscopeError(f"expected({unknown})", f"some of {', '.join(known)}", "check the names")
    with declared((name, at) for name in faults):
        yield


@contextmanager
def declared(declarations: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Declare pairs of a fault and a pattern of addresses in a block, besides those that hold already."""
    token = _DECLARED.set((*_DECLARED.get(), *declarations))
    try:
        yield
    finally:
        _DECLARED.reset(token)


def declarations() -> tuple[tuple[str, str], ...]:
    """Return what is declared now, by the blocks that are open: faults and patterns of addresses."""
    return _DECLARED.get()


def is_expected(fault: str, address: str) -> bool:
    """Return whether a fault at an address has been declared by a block that is open now."""
    path = address.partition("#")[0]
    return any(
        name == fault and (fnmatchcase(path, pattern) or fnmatchcase(address, pattern))
        for name, pattern in _DECLARED.get()
    )

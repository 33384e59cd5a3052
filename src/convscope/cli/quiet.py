"""Whether a command says nothing about its work: ``--quiet``, which every command has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

FLAGS = ("--quiet", "-q")
_quiet = ContextVar("quiet", default=False)


def is_quiet() -> bool:
    """Return whether only results and errors are to be told."""
    return _quiet.get()


@contextmanager
def without_quiet(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield a command line without its ``--quiet``, quiet for the block if it had one.

    Example:
        >>> with without_quiet(["cost", "alexnet", "-q"]) as words:
        ...     words, is_quiet()
        (['cost', 'alexnet'], True)
    """
    left = [word for word in words if word not in FLAGS]
    token = _quiet.set(len(left) < len(words))
    try:
        yield left
    finally:
        _quiet.reset(token)

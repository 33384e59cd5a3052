"""What a text from outside leads to, if it is a path at all.

pathlib raises for texts that no file system takes: too long, with a NUL in them, or in a folder that mayn't
be looked into. Nothing lies there for whoever asks.
"""

import stat
from pathlib import Path


def exists(path: str | Path) -> bool:
    """Return whether anything is there.

    Example:
        >>> exists("."), exists("x" * 5000), exists("a" + chr(0))
        (True, False, False)
    """
    return _mode(path) is not None


def is_file(path: str | Path) -> bool:
    """Return whether a regular file is there."""
    return stat.S_ISREG(_mode(path) or 0)


def is_folder(path: str | Path) -> bool:
    """Return whether a folder is there."""
    return stat.S_ISDIR(_mode(path) or 0)


def _mode(path: str | Path) -> int | None:
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return None

"""Files that are either whole or absent: written under a temporary name, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from convscope.core.errors import ConvscopeError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes that name if the block ends without an exception.

    Raises:
        ConvscopeError: the folder can't be made or written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "log.txt"
        >>> with whole_file(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except IsADirectoryError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it replaces ``path`` if the block ends without an exception.

    What was in ``path`` is gone then: ask :func:`check_replaceable` first whether it may go. A link to a
    folder stays, and the folder that it points to is replaced.

    Raises:
        ConvscopeError: the parent can't be written, ``path`` is a file, or the current folder lies in it.
    """
    path = Path(path)
    try:
        final = path.resolve()
        if Path.cwd().is_relative_to(final):
            raise OSError(16, "the current folder lies in it")
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not final.is_dir():
            raise NotADirectoryError(20, "a file of that name is in the way")
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        _exchange(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: str | Path, mark: str, own: Collection[str]) -> None:
    """Refuse a folder that holds anything but what an earlier run of the same command wrote.

    Args:
        folder: where a command wants to write; it may not exist.
        mark: a file that is in every folder which that command writes.
        own: patterns of the names that the command writes, ``mark`` included.

    Raises:
        ConvscopeError: the folder holds other things; one of them is named.
    """
    entries = sorted(entry.name for entry in Path(folder).iterdir()) if Path(folder).is_dir() else []
    foreign = [name for name in entries if not any(fnmatch(name, pattern) for pattern in own)]
    if entries and (foreign or mark not in entries):
        raise ConvscopeError(
            f"output {str(folder)!r} holds other files ({(foreign or entries)[0]})",
            "a new folder, an empty one, or one that this command wrote before",
            "choose another one with --out",
        )


def _exchange(new: Path, final: Path) -> None:
    """Give ``new`` the name ``final``; what had that name goes only once that has worked."""
    replaced = Path(f"{new}.old")
    if final.exists():
        final.rename(replaced)
    try:
        new.rename(final)
    except OSError:
        if replaced.exists():
            replaced.rename(final)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _unwritable(path: Path, error: OSError) -> ConvscopeError:
    return ConvscopeError(
        f"output {str(path)!r} can't be written ({error.strerror or error})",
        "a path in a folder that you may write to",
        "choose another one with --out",
    )

"""Files that are either whole or absent: written under a temporary name, then renamed."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes that name if the block ends without an exception.

    A link stays, and the file that it points to is replaced, with the permissions that it had. What is there
    but is no regular file (a device, a pipe) can't be replaced: the block then writes straight into it.

    Raises:
        ConvscopeError: the file or its folder can't be made or written, or ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "log.txt"
        >>> with whole_file(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    with nothing_begun(path.parent):
        try:
            mode = _mode_of(path)
            final = path.resolve() if mode is None or stat.S_ISREG(mode) else None
            temporary = path if final is None else _beside(final)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            yield temporary
            if final is not None:
                temporary.chmod(0o666 & ~_umask() if mode is None else stat.S_IMODE(mode))
                temporary.replace(final)
        except OSError as error:
            if error.filename not in (None, str(temporary)):
                raise  # of another file, which the block reads
            raise _unwritable(path, error) from error
        finally:
            if final is not None:
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
    with nothing_begun(path.parent):
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


@contextmanager
def nothing_begun(folder: str | Path, *names: str) -> Iterator[None]:
    """Leave no trace of a block that ends with an exception where nothing was before.

    Args:
        folder: if it isn't there before the block, it is taken away again, with those of its parents that
            weren't there either, as far as they hold nothing else.
        names: files and folders in it that go with it; they go, too, if the folder was there without them.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not exists(path)]
    own = [folder / name for name in names if not exists(folder / name)]
    try:
        yield
    except BaseException:
        for path in own:
            _remove(path)
        with suppress(OSError):  # it holds something else
            for path in missing:
                path.rmdir()
        raise


@contextmanager
def replaced_together(folder: str | Path, *names: str) -> Iterator[None]:
    """Take away what a folder holds under some names, for a block that writes them anew.

    If the block ends with an exception, what was there comes back, and nothing of the block's stays. Until
    then it lies in a hidden folder beside ``folder``.

    Raises:
        ConvscopeError: the folder or the one that holds it can't be written.
    """
    folder = Path(folder).resolve()
    with nothing_begun(folder, *names):
        before = [name for name in names if exists(folder / name)]
        if not before:
            yield
            return
        try:
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            for name in before:
                (folder / name).rename(aside / name)
            yield
        except BaseException:
            for name in before:
                if exists(aside / name):
                    _remove(folder / name)
                    (aside / name).rename(folder / name)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def check_replaceable(folder: str | Path, own: Collection[str], what: str) -> None:
    """Refuse a folder that holds anything but what an earlier run of the same command wrote.

    Args:
        folder: where a command wants to write; it may not exist.
        own: the names in it that an earlier run wrote; empty if there was none.
        what: what the command writes, such as ``"gallery"``.

    Raises:
        ConvscopeError: the folder holds other things, can't be read, or a file is in the way.
    """
    folder = Path(folder)
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            raise NotADirectoryError(20, f"{str(existing)!r} is a file")
        entries = {entry.name for entry in folder.iterdir()} if existing == folder else set()
    except OSError as error:
        raise _unwritable(folder, error) from error
    foreign = sorted(entries - set(own))
    if foreign:
        raise ConvscopeError(
            f"output {str(folder)!r} holds other files ({', '.join(foreign[:3])}), which would be lost",
            f"a new folder, an empty one, or an older {what}",
            "choose another one",
        )


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


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


def _mode_of(path: Path) -> int | None:
    """The mode of what ``path`` leads to, or None if nothing is there; refused if it can't be written."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "you may not write to it")
    return mode


def _beside(path: Path) -> Path:
    """A new file in the folder of ``path``, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    return Path(name)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _unwritable(path: Path, error: OSError) -> ConvscopeError:
    return ConvscopeError(
        f"output {str(path)!r} can't be written ({error.strerror or error})",
        "a file or folder that you may write to",
        "choose another one",
    )

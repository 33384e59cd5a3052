"""One session at a time in a run's folder: two would write over each other's checkpoints."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from convscope.core.errors import ConvscopeError
from convscope.train.keeping.folder import RunFolder
from convscope.train.running.engine import agreed

if TYPE_CHECKING:
    from accelerate import Accelerator

_HELD = frozenset({errno.EACCES, errno.EAGAIN})


@contextmanager
def only_session(folder: RunFolder, accelerator: "Accelerator") -> Iterator[None]:
    """Hold a run's folder for a block, on the main process; the system lets go of a process that dies.

    The lock is POSIX's, of a process: loading workers don't inherit it and so can't outlive it. Where a file
    system has no locks there is none.

    Raises:
        ConvscopeError: another session holds it; on all processes.
    """
    file = _opened(folder) if accelerator.is_main_process else None
    is_held = file is not None and not _locked(file)
    if agreed("held" if is_held else "", accelerator):
        if file is not None:
            file.close()
        raise ConvscopeError(
            f"output {str(folder.path)!r}, in which another session is training",
            "one session at a time",
            "wait for it, end it, or choose another folder",
        )
    try:
        yield
    finally:
        if file is not None:
            folder.lock.unlink(missing_ok=True)
            file.close()


def _opened(folder: RunFolder) -> IO[str] | None:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder.lock.open("a")
    except OSError:
        return None  # whatever is wrong with the folder is told when the first file is written


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True

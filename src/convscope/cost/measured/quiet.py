"""Standard error without the notes that PyTorch's profiler writes to it when it starts and stops.

Kineto writes them from C++ to file descriptor 2, past ``sys.stderr``, whatever its log level
(``USDT:… SyncActivityProfilerHandler.cpp:52] profiler_start``).
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = b"USDT:"


@contextmanager
def without_profiler_notes() -> Iterator[None]:
    """Run a block without the profiler's notes; what else it writes comes when it ends, however it ends."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    _flush()
    with tempfile.TemporaryFile() as written:
        try:
            os.dup2(written.fileno(), 2)
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            for line in written:
                if not line.startswith(_NOTE):
                    os.write(2, line)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()

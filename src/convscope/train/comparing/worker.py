"""A process that trains runs of a comparison: :func:`main`, which the pool starts.

It reads tasks from its standard input, one a line, and answers on its standard output, one JSON object a
line. When that input ends without the word that all is done, whoever gave the tasks is gone, and so is the
worker, at once: checkpoints are whole at every moment.
"""

import base64
import json
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

END = "end"


def encoded(task: Any) -> str:
    """Return a task as one line."""
    return base64.b64encode(pickle.dumps(task)).decode("ascii") + "\n"


def main() -> None:
    """Carry out tasks until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the parent's to handle
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the user's code prints is no answer
    tasks: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()

    def tell(content: dict[str, Any]) -> None:
        channel.write(json.dumps(content) + "\n")
        channel.flush()

    while (task := tasks.get()) != END:
        tell(_answer(task, tell))
    os._exit(0)  # without waiting for the thread that reads


def _read(tasks: "queue.Queue[Any]") -> None:
    for line in sys.stdin:
        task = pickle.loads(base64.b64decode(line))  # written by our own parent process
        tasks.put(task)
        if task == END:
            return
    os._exit(1)


def _answer(task: tuple[Any, ...], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Carry out one task, whatever may happen, and return what to tell of it."""
    # Imported here, so that the thread that notices the parent's end runs meanwhile.
    from convscope.train.comparing.tasks import Teller, carried_out, measured

    kind, what, feed, threads = task
    if kind == "probe":
        return measured(what, feed, threads)
    return carried_out(what, feed, threads, Teller(lambda share: tell({"share": share})))

"""Runs side by side in processes of their own, or one after the other in this one.

A process that dies takes its run with it, not the others: the run is told as failed, and another process
goes on with the rest.
"""

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.train.comparing.course import ComparingProgress, Course
from convscope.train.comparing.forecast import Probe
from convscope.train.comparing.machine import Layout
from convscope.train.comparing.running import Feed, note_failure
from convscope.train.comparing.table import Arm, PlannedRun
from convscope.train.comparing.tasks import Teller, carried_out, measured
from convscope.train.comparing.worker import END, encoded

# Not by -m, which warns of a module that its own package imports; the warning would be its last words.
_WORKER = "from convscope.train.comparing.worker import main; main()"
_LOOK_SECONDS = 0.1
_END_SECONDS = 5.0


class Worker:
    """A process that carries out tasks.

    Args:
        laid: the machine's layout.
        slot: its number, which decides about its GPU.
    """

    def __init__(self, laid: Layout, slot: int) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=laid.environment(slot),
            text=True,
            encoding="utf-8",
        )

    @property
    def is_alive(self) -> bool:
        """Whether it takes tasks."""
        return self._process.poll() is None

    def do(self, task: Any, share: Callable[[float], None] = lambda _: None) -> dict[str, Any]:
        """Carry out a task and return the answer; a process that died is a failed task."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(encoded(task))
            stdin.flush()
            for line in stdout:
                answer: dict[str, Any] = json.loads(line)
                if "share" not in answer:
                    return answer
                share(answer["share"])
        except OSError:
            pass
        return {"state": "failed", "error": self._last_words()}

    def stop(self, now: bool = False) -> None:
        """End the process: after its task, or at once."""
        try:
            if self._process.stdin is not None:
                if not now and self.is_alive:
                    self._process.stdin.write(encoded(END))
                self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Close what its answers came through, once nobody reads there any more."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"code {code}"
        return f"the process ended with {how}{f': {lines[-1].strip()}' if lines else ''}"


class Pool:
    """Runs of a table on this machine.

    Args:
        laid: the machine's layout.
        feed: the images.
        course: is told what becomes of the runs.
    """

    def __init__(self, laid: Layout, feed: Feed, course: Course) -> None:
        self.laid, self.feed, self.course = laid, feed, course
        self._tasks: queue.SimpleQueue[PlannedRun] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._stopping = False

    def run(self, runs: Iterable[PlannedRun], progress: ComparingProgress) -> None:
        """Carry out runs; returns when each has ended, and ends all processes if interrupted."""
        todo = list(runs)
        if self.laid.processes == 0:
            for planned in todo:
                self._here(planned, progress)
            return
        for planned in todo:
            self._tasks.put(planned)
        slots = range(min(self.laid.processes, len(todo)))
        threads = [threading.Thread(target=self._serve, args=(slot,), daemon=True) for slot in slots]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                time.sleep(_LOOK_SECONDS)
                progress.standing(self.course.standing())
        finally:
            self._stopping = True
            for worker in list(self._workers):
                worker.stop(now=True)
            for thread in threads:
                thread.join()
            for worker in self._workers:
                worker.close()

    def _serve(self, slot: int) -> None:
        """Give a process task after task; a new one if it died."""
        worker: Worker | None = None
        while not self._stopping:
            try:
                planned = self._tasks.get_nowait()
            except queue.Empty:
                break
            if worker is None or not worker.is_alive:
                worker = Worker(self.laid, slot)
                self._workers.append(worker)
                if self._stopping:  # meanwhile, so nobody else ends it
                    worker.stop(now=True)
            self._one(worker, planned)

    def _one(self, worker: Worker, planned: PlannedRun) -> None:
        course = self.course
        course.share(planned.name, 0.0)
        answer = worker.do(
            ("run", planned, self.feed, self.laid.threads), lambda share: course.share(planned.name, share)
        )
        if self._stopping:
            return
        if answer["state"] == "failed":
            note_failure(planned.folder, answer["error"])
        course.end(planned.name, answer["state"])

    def _here(self, planned: PlannedRun, progress: ComparingProgress) -> None:
        def tell(share: float) -> None:
            self.course.share(planned.name, share)
            progress.standing(self.course.standing())

        answer = carried_out(planned, self.feed, self.laid.threads, Teller(tell))
        self.course.end(planned.name, answer["state"])
        progress.standing(self.course.standing())


def measure(arms: Sequence[Arm], feed: Feed, laid: Layout) -> list[tuple[Arm, Probe]]:
    """Return what a few steps of each arm take, where it trains: in a process of its own, or here.

    The first one's time before its first step is that of a process, too: starting, imports, images.

    Raises:
        ConvscopeError: an arm can't be trained at all.
    """
    if laid.processes == 0:
        return [(arm, _probed(arm, measured(arm, feed, laid.threads))) for arm in arms]
    began = time.perf_counter()
    worker = Worker(laid, 0)
    try:
        found: list[tuple[Arm, Probe]] = []
        for arm in arms:
            probe = _probed(arm, worker.do(("probe", arm, feed, laid.threads)))
            if not found:
                starting = max(time.perf_counter() - began - probe.seconds, 0.0)
                probe = replace(probe, process_seconds=probe.process_seconds + starting)
            found.append((arm, probe))
        return found
    finally:
        worker.stop(now=True)
        worker.close()


def _probed(arm: Arm, answer: dict[str, Any]) -> Probe:
    if "refused" in answer:
        given, expected, action = answer["refused"]
        raise ConvscopeError(
            given if answer.get("of_data") else f"arm {arm.name!r}: {given}", expected, action
        )
    if "error" in answer:
        raise ConvscopeError(
            f"arm {arm.name!r} can't be trained: {answer['error']}",
            "an arm whose first steps run",
            "correct or drop it",
        )
    losses = tuple(answer["probe"].get("losses", ()))  # a list, when it comes from another process
    return Probe(**{**answer["probe"], "losses": losses})

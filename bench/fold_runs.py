"""Measurements of folding, kept in files: each tool and network in a process of its own; runs resume.

A process is forked from a server that has the libraries loaded, so that it starts at once and gives all its
memory back.
"""

import json
import multiprocessing
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.fold_measure import measured
from bench.fold_networks import NETWORKS

Job = tuple[str, str]
"""A tool and a network."""

_SECONDS = 900.0
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["bench.fold_measure", "timm", "torchvision"])


class Measurements:
    """What was measured, by tool and network: read from a file once, and written whole after every entry."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        content = json.loads(path.read_text()) if path.exists() else {}
        self.versions: dict[str, str] = content.get("versions", {})
        self.entries: dict[str, dict[str, dict[str, Any]]] = content.get("networks", {})

    def of(self, method: str) -> dict[str, dict[str, Any]]:
        """Return the entries of a tool by network."""
        return self.entries.get(method, {})

    def measure(self, jobs: Iterable[Job], versions: dict[str, str], workers: int, until: float) -> None:
        """Measure the jobs, ``workers`` at a time; none is started after ``until``."""

        def run(job: Job) -> None:
            if time.monotonic() < until:
                self._add(job, _in_own_process(job), versions)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, jobs))

    def _add(self, job: Job, entry: dict[str, Any], versions: dict[str, str]) -> None:
        method, network = job
        with self._lock:
            self.versions[method] = versions[method]
            self.entries.setdefault(method, {})[network] = entry
            self._write()
        print(f"{method}: {network}: {json.dumps(entry)}", flush=True)

    def _write(self) -> None:
        methods = []
        for method, entries in self.entries.items():
            ordered = [name for name in NETWORKS if name in entries]
            lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(entries[name])}" for name in ordered)
            methods.append(f"  {json.dumps(method)}: {{\n{lines}\n  }}")
        head = json.dumps(self.versions, indent=2)
        text = f'{{\n "versions": {head},\n "networks": {{\n' + ",\n".join(methods) + "\n }\n}\n"
        part = self.path.with_suffix(".part")
        part.write_text(text)
        part.replace(self.path)


def _in_own_process(job: Job) -> dict[str, Any]:
    here, there = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_answer, args=(there, *job))
    process.start()
    there.close()
    try:
        answer: dict[str, Any] = (
            here.recv() if here.poll(_SECONDS) else {"failure": f"took longer than {_SECONDS:.0f} s"}
        )
    except EOFError:
        process.join()
        answer = {"failure": f"the process ended with status {process.exitcode}"}
    process.kill()
    process.join()
    return answer


def _answer(there: Connection, method: str, network: str) -> None:
    there.send(measured(method, network))

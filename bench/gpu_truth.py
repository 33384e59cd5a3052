"""Memory of training steps measured on a GPU, and the forecast beside it.

``python -m bench.gpu_truth measure`` measures the steps of :mod:`bench.gpu_rows`, each in a process of its
own, by the protocol of :mod:`convscope.cost.measured.cuda_truth`, and writes
``bench/truth/<gpu>-<torch>.json`` after every step: started again, it goes on where it stopped. Several
processes share the GPU, which changes nothing that is measured; a step that doesn't fit beside others is
repeated alone.
``python -m bench.gpu_truth compare FILE`` needs no GPU.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from bench.gpu_compare import compare, read_truth, report
from bench.gpu_device import described
from bench.gpu_rows import Row, fields_of, row_of, rows
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.cost.measured.cuda_device import require_cuda
from convscope.cost.measured.cuda_truth import measure as measure_step
from convscope.networks import load

TRUTH = Path(__file__).with_name("truth")
SCHEMA_VERSION = 1
_ROOT = Path(__file__).parents[1]
_MARK = "GPU-TRUTH "
_STEP_SECONDS = 180  # a step that takes longer hangs
_LAST_START_SECONDS = 40  # no step is started with less time left
_NO_FIT = "doesn't fit"

Asked = Callable[[str], dict[str, Any]]
"""Answers ``"device"`` or a row as JSON, from a fresh process."""


def table() -> str:
    """Return the comparison of every file in ``bench/truth``."""
    files = sorted(TRUTH.glob("*.json"))
    if not files:
        return "No GPU has been measured: `python -m bench.gpu_truth measure` on a machine that has one."
    return "\n".join(report(compare(path)) for path in files)


def measure(
    out: Path | None = None,
    seconds: float = 500.0,
    jobs: int = 4,
    only: str = "*",
    ask: Asked | None = None,
) -> Path:
    """Measure the steps that the file lacks, for as long as is allowed; return the file.

    Args:
        out: the file; by default named after the GPU and PyTorch's version.
        seconds: no step is started when less than 40 of them are left.
        jobs: processes at a time.
        only: labels that match, such as ``"timm:*fp32*"``.
        ask: see :data:`Asked`.

    Raises:
        ConvscopeError: there is no CUDA device, or the file is of another machine.
    """
    if ask is None:
        require_cuda()
        ask = _in_fresh_process
    device = ask("device")
    if "failure" in device:
        raise ConvscopeError(
            f"a GPU that fails ({device['failure']})", "one that runs a small network", "see to its driver"
        )
    path = out or TRUTH / f"{_slug(device['gpu'])}-{device['torch']}.json"
    file = _File(path, device)
    waiting = [row for row in rows() if fnmatch(row.label, only) and not file.has(row)]
    until = time.monotonic() + seconds - _LAST_START_SECONDS
    again: list[Row] = []

    def run(row: Row, alone: bool) -> None:
        if time.monotonic() > until:
            return
        answer = ask(json.dumps(fields_of(row)))
        if not alone and _NO_FIT in answer.get("failure", ""):
            again.append(row)
        else:
            file.add(row, answer)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda row: run(row, jobs == 1), waiting))
    for row in again:
        run(row, alone=True)
    left = sum(not file.has(row) for row in waiting)
    print(f"{path}: {len(file.entries)} steps, {len(file.failures)} failures, {left} left", flush=True)
    return path


class _File:
    """The file of measurements: read once, written whole after every step."""

    def __init__(self, path: Path, device: dict[str, Any]) -> None:
        self._path, self._header = path, {"schema_version": SCHEMA_VERSION, **device}
        self._lock = threading.Lock()
        self.entries: dict[Row, dict[str, Any]] = {}
        self.failures: dict[Row, str] = {}
        if path.exists():
            header, entries = read_truth(path)
            self._check(header)
            self._header["context_bytes"] = header.get("context_bytes")
            self.entries = {row_of(entry): entry for entry in entries}
            self.failures = {row_of(failed): failed["reason"] for failed in header.get("failures", ())}

    def has(self, row: Row) -> bool:
        """Whether a step was measured, or is known not to fit."""
        return row in self.entries or _NO_FIT in self.failures.get(row, "")

    def add(self, row: Row, answer: dict[str, Any]) -> None:
        """Keep what a process answered, and write the file."""
        with self._lock:
            self.failures.pop(row, None)
            if "failure" in answer:
                self.failures[row] = answer["failure"]
            else:
                self.entries[row] = {**fields_of(row), **answer}
            self._write()
        print(f"{row.label}: {answer.get('failure') or answer['allocated_peak_bytes']}", flush=True)

    def _check(self, header: dict[str, Any]) -> None:
        for name, value in self._header.items():
            if name != "context_bytes" and header.get(name) != value:
                raise ConvscopeError(
                    f"measurements {str(self._path)!r} with {name} {header.get(name)!r}",
                    f"{value!r}, as here",
                    "choose another file with --out",
                )

    def _write(self) -> None:
        order = [row for row in rows() if row in self.entries]
        order += [row for row in self.entries if row not in order]
        failures = [{**fields_of(row), "reason": reason} for row, reason in self.failures.items()]
        content = {**self._header, "failures": failures}
        head = json.dumps(content, indent=1, ensure_ascii=False).rstrip().removesuffix("}").rstrip()
        lines = ",\n  ".join(json.dumps(self.entries[row], ensure_ascii=False) for row in order)
        with whole_file(self._path) as temporary:
            temporary.write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


def _in_fresh_process(question: str) -> dict[str, Any]:
    """Answer a question in a new process, whose last marked line is the answer."""
    paths = [str(_ROOT), str(_ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    environment.setdefault("TORCH_SYMBOLIZE_MODE", "fast")
    command = [sys.executable, "-m", "bench.gpu_truth", "answer", question]
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_STEP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"took longer than {_STEP_SECONDS} s"}
    marked = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if marked:
        answer: dict[str, Any] = json.loads(marked[-1].removeprefix(_MARK))
        return answer
    said = done.stderr.strip().splitlines()
    return {"failure": f"exit status {done.returncode}: {said[-1] if said else 'nothing said'}"[:300]}


def _answer(question: str) -> dict[str, Any]:
    """Measure a row, or say what the device is; in this process."""
    try:
        if question == "device":
            return described()
        row = row_of(json.loads(question))
        torch.manual_seed(0)
        model, shape = load(row.network, batch=row.batch)
        found = measure_step(model, shape, row.plan).to_dict()
        del found["schema_version"], found["device"]
        return {"input_shape": list(shape), **found}
    except Exception as error:  # one step's failure is a line in the file, not the end of the others
        cause = error.__cause__ or error
        if isinstance(cause, torch.OutOfMemoryError):
            return {"failure": f"{_NO_FIT}: {str(cause).splitlines()[0]}"[:300]}
        return {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_truth", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="measure on this machine's GPU")
    measuring.add_argument("--out", type=Path, help="the file; named after GPU and PyTorch by default")
    measuring.add_argument("--seconds", type=float, default=500.0, help="stop after about so long")
    measuring.add_argument("--jobs", type=int, default=4, help="processes at a time")
    measuring.add_argument("--only", default="*", help="steps whose label matches, such as 'timm:*fp32*'")
    comparing = commands.add_parser("compare", help="print the forecasts beside a file's measurements")
    comparing.add_argument("file", type=Path)
    commands.add_parser("answer").add_argument("question")
    given = parser.parse_args(arguments)
    try:
        if given.command == "measure":
            measure(given.out, given.seconds, given.jobs, given.only)
        elif given.command == "compare":
            print(report(compare(given.file)))
        else:
            print(_MARK + json.dumps(_answer(given.question), ensure_ascii=False), flush=True)
    except ConvscopeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

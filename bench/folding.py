"""Batch norm folded away in 90 networks, beside what other tools leave; its speed, and the time it takes.

Networks of timm and torchvision with 5,272 batch norms, untrained, their statistics disturbed so that a wrong
fold shows (`bench/fold_statistics.py`), batch 2. "Left" counts batch norm operators that really run
afterwards, and of ours also those whose shift is left to add; for ONNX and OpenVINO those in the optimised
graph. A network on which a tool fails counts whole. "Wrong": outputs on fresh random inputs differ from the
unfolded network's in float64 by more than 1e-9 of the largest; ONNX and OpenVINO compute in float32 and are
wrong beyond 1e-4 and 30 times the network's own rounding. "Merged": parallel branches become one convolution.
ONNX is exported with constants folded; without that ONNX Runtime folds nothing. "Reference": what exact folds
without a new operator leave where branches stay apart, read off the graph by hand-written rules.
Measurements are kept in `bench/fold_ours.json` and `bench/fold_peers.json`; `python -m bench.folding`
measures what these lack, `--again` what they have.

CPU seconds are those of all threads of the process together. Then come the time that folding itself takes,
and the speed of what it makes: evaluation mode at 3 × 224 × 224, medians of ratios of neighbours in time on
one thread; the twin was made without batch norm, RepVGG's with plain convolutions.
"""

import argparse
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench import fold_growth, fold_speed
from bench.fold_measure import OURS, sources
from bench.fold_networks import NETWORKS
from bench.fold_peers import PEERS
from bench.fold_runs import Measurements
from bench.fold_tables import coverage, found_in, per_network

HERE = Path(__file__).parent
FIGURES = {"ours": HERE / "fold_ours.json", "peers": HERE / "fold_peers.json"}
STALE = "stale"
_WORKERS = 2


def table() -> str:
    """Measure what is missing and return all tables."""
    measure()
    return "\n\n".join([tables(), fold_growth.table(), fold_speed.table()])


def tables() -> str:
    """Return the tables of what was measured, and what it belongs to."""
    ours, peers = (Measurements(FIGURES[file]) for file in ("ours", "peers"))
    found = found_in(ours, peers)
    packages = {package for said in peers.versions.values() for package in said.split(", ")}
    said = [f"Versions: {', '.join(sorted(packages))}."]
    if not all(_is_kept(OURS, entry, STALE) for entry in ours.of(OURS).values()):
        said.append("Ours were measured, at least in part, on another state of the sources.")
    return "\n\n".join([coverage(found), " ".join(said), per_network(found)])


def measure(
    only: str = "*",
    tools: str = "*",
    again: str = "",
    workers: int = _WORKERS,
    seconds: float = float("inf"),
) -> None:
    """Measure the networks that the files lack, ours first, for as long as is allowed.

    Args:
        only: names of networks, such as ``"tv/*"``.
        tools: names of tools, such as ``"torch*"``.
        again: names of tools whose networks are measured whether they are there or not; ``"stale"`` for
            those of ours that failed or were measured on other sources.
        workers: processes at a time.
        seconds: none is started after so many.
    """
    until = time.monotonic() + seconds
    for file, methods in (("ours", [OURS]), ("peers", list(PEERS))):
        figures = Measurements(FIGURES[file])
        for method in (name for name in methods if fnmatch(name, tools)):
            if file == "peers" and (missing := PEERS[method].missing()):
                print(f"{method}: not run, {', '.join(missing)} not installed")
                continue
            have = {name for name, entry in figures.of(method).items() if _is_kept(method, entry, again)}
            jobs = [(method, name) for name in NETWORKS if fnmatch(name, only) and name not in have]
            figures.measure(jobs, {method: _version(method)}, workers, until)


def _is_kept(method: str, entry: Mapping[str, Any], again: str) -> bool:
    """Whether an entry needn't be measured again."""
    if again == STALE:
        return method != OURS or ("failure" not in entry and entry["sources"] == sources())
    return not (again and fnmatch(method, again))


def _version(method: str) -> str:
    ours = f"convscope {version('convscope')}"
    return f"{ours if method == OURS else PEERS[method].versions()}, torch {torch.__version__}"


def main() -> None:
    """Measure what the files lack and print the tables of coverage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="networks that match, such as 'tv/*'")
    parser.add_argument("--tools", default="*", help="tools that match, such as 'convscope' or 'ONNX*'")
    parser.add_argument("--again", default="", help="tools to measure again, or 'stale'")
    parser.add_argument("--workers", type=int, default=_WORKERS, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after about so long")
    given = parser.parse_args()
    measure(given.only, given.tools, given.again, given.workers, given.seconds)
    print(tables())


if __name__ == "__main__":
    main()

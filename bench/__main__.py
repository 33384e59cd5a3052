"""Run benchmarks and write what they measured to ``bench/RESULTS.md``: ``python -m bench [NAME …]``.

Each file measures one thing side by side with a peer, interleaved in one process, and reports ratios of
medians: absolute times on shared machines say little. Sections of benchmarks that aren't run stay.
"""

import platform
import sys
from pathlib import Path
from types import ModuleType

import torch

from bench import (
    accuracy,
    allocator,
    checkup,
    cpu_memory,
    data_cache,
    flops,
    folding,
    gpu_truth,
    lean,
    norm_gpu,
    norm_kernels,
    normalisation,
    recording,
    sight_occlusion,
    sight_peers,
    sight_projections,
    sight_scan,
    training,
    training_peers,
    watching,
)

BENCHMARKS = (
    recording,
    flops,
    cpu_memory,
    gpu_truth,
    normalisation,
    lean,
    norm_kernels,
    norm_gpu,
    accuracy,
    folding,
    checkup,
    watching,
    sight_occlusion,
    sight_peers,
    sight_projections,
    sight_scan,
    data_cache,
    training,
    training_peers,
    allocator,
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def main(names: list[str]) -> None:
    """Run the benchmarks named, or all of them, in turn and write the results."""
    known = {benchmark.__name__.rpartition(".")[2]: benchmark for benchmark in BENCHMARKS}
    if unknown := set(names) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    torch.set_num_threads(1)
    machine = (
        f"{platform.machine()}, one thread, PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    sections = _sections()
    for name in names or known:
        title = _title(known[name])
        print(title)
        table = known[name].table()
        print(table)
        said = (known[name].__doc__ or "").partition("\n")[2].strip()
        sections[title] = f"## {title}\n\n{said}\n\n{table}\n"
        _write(sections, machine)


def _write(sections: dict[str, str], machine: str) -> None:
    head = (
        "# Measured\n\n"
        f"`make bench`; {machine}. Ratios of times say who is faster: below 1 it is the first one named.\n"
    )
    ordered = [_title(benchmark) for benchmark in BENCHMARKS if _title(benchmark) in sections]
    RESULTS.write_text("\n".join([head, *(sections[title] for title in ordered)]))


def _title(benchmark: ModuleType) -> str:
    return (benchmark.__doc__ or "").splitlines()[0]


def _sections() -> dict[str, str]:
    """The sections that are there, by title."""
    parts = RESULTS.read_text().split("\n## ")[1:] if RESULTS.is_file() else []
    return {part.splitlines()[0]: f"## {part.rstrip()}\n" for part in parts}


if __name__ == "__main__":
    main(sys.argv[1:])

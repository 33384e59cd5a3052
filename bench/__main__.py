"""Run every benchmark and write what it measured to ``bench/RESULTS.md``: ``make bench``.

Each file measures one thing side by side with a peer, interleaved in one process, and reports ratios of
medians: absolute times on shared machines say little.
"""

import platform
from pathlib import Path

import torch

from bench import folding, normalisation, recording

BENCHMARKS = (recording, normalisation, folding)


def main() -> None:
    """Run the benchmarks in turn and write the results."""
    torch.set_num_threads(1)
    machine = (
        f"{platform.machine()}, one thread, PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    parts = [
        "# Measured speed\n",
        f"`make bench`; {machine}. Ratios below 1 mean that convscope is faster.\n",
    ]
    for benchmark in BENCHMARKS:
        title = (benchmark.__doc__ or "").splitlines()[0]
        print(title)
        table = benchmark.table()
        print(table)
        parts += [f"## {title}\n", (benchmark.__doc__ or "").partition("\n")[2].strip() + "\n", table + "\n"]
    Path(__file__).with_name("RESULTS.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()

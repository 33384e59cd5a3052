"""Training steps on a CPU whose C library keeps freed memory.

Processor time of a training step (cross-entropy, fused SGD with momentum, one thread) with
``core.allocator``, divided by the same without; median and range of five turns, each two new
processes, of which each takes the median of steps 3 to 9. Below 1 it is faster with memory kept. Beside it
the kernel's share of a step without it, and the ratio of the processes' peaks of resident memory.
"""

import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from statistics import median

import torch
from torch.nn import functional as F

from bench.clock import markdown
from bench.training import spread
from convscope.core.allocator import memory_kept

TURNS, WARM, STEPS = 5, 2, 7
RUNS = (
    ("resnet18", 96, 32),
    ("resnet18", 224, 16),
    ("resnet50", 160, 8),
    ("vgg11_bn", 160, 8),
    ("mobilenet_v2", 160, 16),
    ("alexnet", 224, 32),
)


def table() -> str:
    """Return the ratios for networks and images of several sizes."""
    rows = []
    for network, side, batch in RUNS:
        with_it, without = [], []
        for turn in range(TURNS):
            pair = {kept: _child(network, side, batch, kept) for kept in (turn % 2 == 0, turn % 2 == 1)}
            with_it.append(pair[True])
            without.append(pair[False])
        ratios = {
            name: [one[name] / other[name] for one, other in zip(with_it, without, strict=True)]
            for name in ("seconds", "peak")
        }
        kernel = median(each["kernel"] for each in without)
        rows.append(
            (
                network,
                f"{batch} × {side}²",
                spread(ratios["seconds"]),
                f"{kernel:.0%}",
                spread(ratios["peak"]),
            )
        )
    return markdown(("network", "images", "kept / not", "kernel's share without", "peak memory"), rows)


def _child(network: str, side: int, batch: int, kept: bool) -> dict[str, float]:
    words = [
        sys.executable,
        "-m",
        "bench.allocator",
        network,
        str(side),
        str(batch),
        "kept" if kept else "not",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _measure(network: str, side: int, batch: int, kept: bool) -> dict[str, float]:
    """Take the steps, and return processor seconds of one, the kernel's share, and the peak in bytes."""
    from torchvision import models  # importable since bench.training is imported

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = getattr(models, network)(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    images, labels = torch.randn(batch, 3, side, side), torch.zeros(batch, dtype=torch.long)
    taken, in_kernel = [], []
    with memory_kept(None, None) if kept else nullcontext():
        for _ in range(WARM + STEPS):
            began, kernel = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            taken.append(time.process_time() - began)
            in_kernel.append(resource.getrusage(resource.RUSAGE_SELF).ru_stime - kernel)
    return {
        "seconds": median(taken[WARM:]),
        "kernel": sum(in_kernel[WARM:]) / sum(taken[WARM:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    name, side, batch, kept = sys.argv[1:]
    print(json.dumps(_measure(name, int(side), int(batch), kept == "kept")))

"""Batch norm and ReLU by kernels on a CPU, forward and backward, against PyTorch's.

``nn.BatchNorm2d`` with ``nn.ReLU`` made fast by ``cs.norm.fast``, against the same without, over the batch
norms of ResNet-50 at batch 32; time of ours divided by PyTorch's, medians of five interleaved rounds, float32
and bfloat16 (with parameters in float32). "large pages": both with ``THP_MEM_ALLOC_ENABLE=1``, by which
PyTorch asks for pages of 2 MiB, which ours asks for anyway: what the kernels alone do. First call: seconds of
the first forward and backward pass of a new process with an empty cache of compiled code, and of another one
that finds it there, imports of numba included.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from statistics import geometric_mean

import torch
from torch import nn

from bench.clock import interleaved, markdown
from convscope.norm import BatchNormAct2d, fast

BATCH = 32
SHAPES = (
    (64, 112), (64, 56), (256, 56), (128, 56), (128, 28), (512, 28),
    (256, 28), (256, 14), (1024, 14), (512, 14), (512, 7), (2048, 7),
)  # fmt: skip
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SETTINGS: Mapping[str, tuple[torch.dtype, int, Mapping[str, str]]] = {
    "float32": (torch.float32, 1, {}),
    "float32, large pages": (torch.float32, 1, {"THP_MEM_ALLOC_ENABLE": "1"}),
    "float32, 2 threads": (torch.float32, 2, {}),
    "bfloat16": (torch.bfloat16, 1, {}),
}


def table() -> str:
    """Return a row for each shape and layout, geometric means, and the first call's time."""
    found = {setting: _in_a_process("measure", setting, SETTINGS[setting][2]) for setting in SETTINGS}
    rows = []
    for layout in LAYOUTS:
        ratios = {setting: found[setting][layout] for setting in SETTINGS}
        for index, (channels, side) in enumerate(SHAPES):
            shown = (f"{ratios[setting][index]:.2f}" for setting in SETTINGS)
            rows.append((f"{channels} × {side}²", layout, *shown))
        means = (f"**{geometric_mean(ratios[setting]):.2f}**" for setting in SETTINGS)
        rows.append(("geometric mean", layout, *means))
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_in_a_process("first", "float32", {"NUMBA_CACHE_DIR": folder}) for _ in range(2))
    calls = [
        (layout, f"{first[layout]:.1f} s", f"{second[layout]:.2f} s", f"{second['later']:.4f} s")
        for layout in LAYOUTS
    ]
    columns = ("first call", "nothing compiled before", "found on disk", "later")
    return f"{markdown(('shape', 'layout', *SETTINGS), rows)}\n\n{markdown(columns, calls)}"


def _in_a_process(task: str, setting: str, variables: Mapping[str, str]) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "bench.norm_kernels", task, setting]
    run = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(run.stdout)
    return found


def _measured(setting: str) -> dict[str, list[float]]:
    dtype, threads, _ = SETTINGS[setting]
    torch.set_num_threads(threads)
    return {
        name: [_ratio(channels, side, dtype, layout) for channels, side in SHAPES]
        for name, layout in LAYOUTS.items()
    }


def _ratio(channels: int, side: int, dtype: torch.dtype, layout: torch.memory_format) -> float:
    x, upstream = (
        torch.randn(BATCH, channels, side, side).to(dtype).to(memory_format=layout) for _ in range(2)
    )
    x.requires_grad_()
    layers = {name: nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) for name in ("ours", "torch")}
    fast(layers["ours"], tuple(x.shape))

    def step(layer: nn.Module) -> None:
        x.grad = None
        layer(x).backward(upstream)

    seconds = interleaved({name: lambda layer=layer: step(layer) for name, layer in layers.items()}, rounds=5)
    return seconds["ours"] / seconds["torch"]


def _first_calls() -> dict[str, float]:
    found = {}
    for name, layout in LAYOUTS.items():
        layer, x = BatchNormAct2d(64), torch.randn(4, 64, 32, 32).to(memory_format=layout).requires_grad_()
        for when in (name, "later"):
            started = time.perf_counter()
            layer(x).sum().backward()
            found[when] = time.perf_counter() - started
    return found


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[2]) if sys.argv[1] == "measure" else _first_calls()))

"""Batch norm and ReLU in Triton on a GPU, against the traffic that they can't avoid and against cuDNN.

Shapes: the batch norms of ResNet-50 at batch 256 whose bfloat16 activations take 64 MB or more, contiguous
and channels_last. Bound: the time that 8 element-sizes of the activation take at the bandwidth of ``copy_``
between two tensors of its size (a copy moves 2). Forward + backward of ours, of ``torch.nn.BatchNorm2d`` with
``ReLU`` (bfloat16 activations, float32 parameters), and the copy run by turns; CUDA events, medians. Between
runs a buffer larger than the L2 cache is overwritten. Compilation happens before the first turn.
"""

from collections.abc import Callable
from statistics import geometric_mean, median

import torch
from torch import Tensor, nn

from bench.clock import markdown
from convscope.norm.fast import gpu
from convscope.norm.fast.activation import Piecewise

BATCH = 256
SHAPES = (
    (64, 112),
    (64, 56),
    (256, 56),
    (128, 56),
    (128, 28),
    (512, 28),
    (256, 28),
    (1024, 14),
)
LEAST_BYTES = 64 * 10**6
TURNS = 21
_FLUSHED_BYTES = 256 * 2**20
_MOVED = 8  # element-sizes forward and backward
_RELU = Piecewise(low=0.0)
_EPS = 1e-5
_COLUMNS = ("channels × side²", "layout", "ours / bound", "PyTorch / bound", "ours / PyTorch", "copy TB/s")


def table() -> str:
    """Return one row per shape and layout, and the geometric means."""
    if not torch.cuda.is_available():
        return "No GPU has been measured: `python -m bench.norm_gpu` on a machine that has one."
    rows, to_bound, to_torch = [], [], []
    for channels, side in SHAPES:
        if BATCH * channels * side**2 * 2 < LEAST_BYTES:
            continue
        for layout in (torch.contiguous_format, torch.channels_last):
            ours, peer, copied, size = _measured(channels, side, layout)
            bound = copied * _MOVED / 2
            to_bound.append(ours / bound)
            to_torch.append(ours / peer)
            rows.append(
                (
                    f"{channels} × {side}²",
                    "contiguous" if layout is torch.contiguous_format else "channels_last",
                    *(f"{ratio:.2f}" for ratio in (ours / bound, peer / bound, ours / peer)),
                    f"{2 * size / copied / 1e9:.2f}",
                )
            )
    means = (f"{geometric_mean(to_bound):.2f}", "", f"{geometric_mean(to_torch):.2f}", "")
    return markdown(_COLUMNS, [*rows, ("geometric mean", "", *means)])


def _measured(channels: int, side: int, layout: torch.memory_format) -> tuple[float, float, float, int]:
    """Return milliseconds of ours, of PyTorch and of a copy, and the bytes of an activation."""
    torch.manual_seed(0)
    x, dy, target = (
        torch.randn(BATCH, channels, side, side, device="cuda").bfloat16().to(memory_format=layout)
        for _ in range(3)
    )
    net = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()).cuda()
    weight, bias = (parameter.detach() for parameter in net[0].parameters())
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def ours() -> None:
        _, *found = gpu.forward(x, weight, bias, _EPS, _RELU)
        gpu.backward(dy, x, weight, bias, (found[0], found[1], found[2]), _EPS, _RELU)

    def peer() -> None:
        torch.autograd.grad(net(leaf), [leaf, *net.parameters()], dy)

    runs = (ours, peer, lambda: target.copy_(x))
    flushed = torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    times: list[list[float]] = [[], [], []]
    for turn in range(TURNS + 3):
        for found, run in zip(times, runs, strict=True):
            milliseconds = _timed(run, flushed)
            if turn >= 3:
                found.append(milliseconds)
    of_ours, of_peer, of_copy = map(median, times)
    return of_ours, of_peer, of_copy, x.numel() * x.element_size()


def _timed(run: Callable[[], object], flushed: Tensor) -> float:
    """Return milliseconds of a run after the cache is flushed; the flush hides the time of launching."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    for _ in range(4):
        flushed.zero_()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


if __name__ == "__main__":
    print(table())

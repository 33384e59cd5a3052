"""How long folding takes: ResNet-50, and networks of growing depth, where time per operator should stay."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

import convscope as cs
from bench.clock import markdown
from bench.fold_compare import functions_run
from bench.fold_measure import unproved
from bench.fold_networks import untrained

_RESNET_SHAPE = (2, 3, 224, 224)
_DEPTHS = (8, 16, 32, 64, 128)
_CHANNELS = 4
_SHAPE = (2, _CHANNELS, 12, 12)
_REPEATS = 3


class Residual(nn.Module):
    """Two convolutions with batch norm beside a connection that skips them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS)
        self.conv2 = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same size."""
        y = self.bn1(self.conv1(x)).relu()
        return (x + self.bn2(self.conv2(y))).relu()


def table() -> str:
    """Return the seconds of ResNet-50 and the milliseconds per operator at every depth."""
    resnet = untrained("tv/resnet50").eval()
    first = [("ResNet-50 at 224 × 224, batch 2", *_both(resnet, _RESNET_SHAPE))]
    rows = []
    for depth in _DEPTHS:
        network = nn.Sequential(*(Residual() for _ in range(depth))).eval()
        count = 2 * depth + functions_run(network, torch.randn(_SHAPE))
        rows.append((str(depth), str(count), *_both(network, _SHAPE, count)))
    header = ("residual blocks", "operators", "ms per operator without proof", "with proof")
    return "\n\n".join(
        [markdown(("network", "seconds without proof", "with proof"), first), markdown(header, rows)]
    )


def _both(network: nn.Module, shape: tuple[int, ...], count: int | None = None) -> tuple[str, str]:
    """Time without and with proof: seconds, or milliseconds for each of ``count`` operators."""
    return _text(lambda: unproved(network, shape), count), _text(lambda: cs.fold(network, shape), count)


def _text(work: Callable[[], object], count: int | None) -> str:
    work()
    seconds = median(_seconds(work) for _ in range(_REPEATS))
    return f"{seconds:.2f}" if count is None else f"{1000 * seconds / count:.2f}"


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

"""Normalisation in training, ours against PyTorch's, forward and backward.

Median time of a step of the layer alone, ours divided by PyTorch's, float32. PyTorch's channels_last batch
norm is fast because its mean is a plain sum: with mean/std = 1e3 and 2^20 values per channel it returns a
variance of 93 instead of 1; the last two columns are the variance that each layer finds there.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from bench.clock import interleaved, markdown
from convscope.norm import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm

SHAPES = ((64, 64, 112, 112), (32, 64, 56, 56), (32, 48, 31, 31), (64, 96, 14, 14), (64, 16, 8, 8))
Pair = tuple[nn.Module, nn.Module]
OTHERS: Mapping[str, Callable[[tuple[int, ...]], Pair]] = MappingProxyType(
    {
        "instance": lambda shape: (
            InstanceNorm2d(shape[1], affine=True),
            nn.InstanceNorm2d(shape[1], affine=True),
        ),
        "group": lambda shape: (GroupNorm(8, shape[1]), nn.GroupNorm(8, shape[1])),
        "layer": lambda shape: (LayerNorm(shape[1:]), nn.LayerNorm(shape[1:])),
    }
)


def table() -> str:
    """Return the ratio for each layer, shape and layout."""
    rows: list[tuple[str, ...]] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        found = _variances(layout)
        for shape in SHAPES:
            ratio = _ratio(shape, layout, (BatchNorm2d(shape[1]), nn.BatchNorm2d(shape[1])))
            rows.append(("batch", _text(shape), _name(layout), ratio, *found))
        for kind, pair in OTHERS.items():
            shape = SHAPES[1]
            rows.append((kind, _text(shape), _name(layout), _ratio(shape, layout, pair(shape)), "", ""))
    return markdown(("norm", "shape", "layout", "ours / torch", "variance found: ours", "torch"), rows)


def _ratio(shape: tuple[int, ...], layout: torch.memory_format, layers: Pair) -> str:
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    upstream = torch.randn_like(x)
    steps = {
        name: lambda layer=layer: layer(x).backward(upstream)
        for name, layer in zip(("ours", "torch"), layers, strict=True)
    }
    seconds = interleaved(steps)
    return f"{seconds['ours'] / seconds['torch']:.2f}"


def _text(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _name(layout: torch.memory_format) -> str:
    return "channels_last" if layout is torch.channels_last else "contiguous"


def _variances(layout: torch.memory_format) -> tuple[str, str]:
    """The variance (truth: 1) that each layer stores for a channel of mean 1000 and 2^20 values."""
    x = (torch.randn(16, 2, 256, 256, generator=torch.Generator().manual_seed(0)) + 1000).to(
        memory_format=layout
    )
    found = []
    for make in (BatchNorm2d, nn.BatchNorm2d):
        layer = make(2, momentum=1.0)
        layer(x)
        assert layer.running_var is not None
        found.append(f"{layer.running_var[0].item():.4f}")
    return found[0], found[1]

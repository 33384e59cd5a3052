"""Batch norm in training, ours against PyTorch's, forward and backward.

Median time of a step of the layer alone, ours divided by PyTorch's, float32. PyTorch's channels_last layer
is fast because its mean is a plain sum: with mean/std = 1e3 and 2^20 values per channel it returns a
variance of 93 instead of 1; the last two columns are the variance that each layer finds there.
"""

import torch
from torch import nn

from bench.clock import interleaved, markdown
from convscope.norm import BatchNorm2d

SHAPES = ((32, 64, 56, 56), (32, 48, 31, 31), (64, 96, 14, 14), (64, 16, 8, 8))


def table() -> str:
    """Return the ratio for each shape and layout."""
    rows = []
    for shape in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).to(memory_format=layout).requires_grad_()
            upstream = torch.randn_like(x)
            layers = {"ours": BatchNorm2d(shape[1]), "torch": nn.BatchNorm2d(shape[1])}
            steps = {
                name: lambda layer=layer, x=x, upstream=upstream: layer(x).backward(upstream)
                for name, layer in layers.items()
            }
            seconds = interleaved(steps)
            name = "channels_last" if layout is torch.channels_last else "contiguous"
            ratio = f"{seconds['ours'] / seconds['torch']:.2f}"
            rows.append((" × ".join(map(str, shape)), name, ratio, *_variances(layout)))
    return markdown(("shape", "layout", "ours / torch", "variance found: ours", "torch"), rows)


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

"""Batch norm statistics for untrained networks that make wrong folds visible.

Fresh batch norms (mean 0, variance 1, γ = 1, β = 0) hide most wrong folds. Here all four differ in every
channel, and 15 % of the γ are negative. Values stay well scaled, so that a network neither drowns errors nor
blows up rounding: means and variances are those of what really reaches a layer behind all others, disturbed.
Deep maps of small inputs hold a handful of values, whose variance in a channel can come out tiny by chance;
no variance is less than a tenth of that of all values of the map.
"""

from typing import Any

import torch
from torch import Tensor, nn

_NEGATIVE = 0.15
_FLOOR = 0.1


def randomise(network: nn.Module, inputs: Tensor) -> None:
    """Fill the batch norms of a network in place and leave it in evaluation mode; the same at every call.

    γ is U(0.6, 1.4) with its sign turned in 15 % of the channels, β is 0.25 N(0, 1); of the statistics of one
    pass, means move by 0.2 σ N(0, 1) and variances are multiplied by U(0.6, 1.6). A layer that runs twice has
    those of its first run, one that doesn't run those of standard normal numbers.

    Args:
        network: any network.
        inputs: what it is run on.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        _draw(layer, generator)
        _set(layer, torch.zeros(layer.num_features), torch.ones(layer.num_features))
    reached: set[nn.Module] = set()

    def calibrate(layer: nn.Module, given: tuple[Any, ...]) -> None:
        if layer not in reached:
            reached.add(layer)
            rows = given[0].transpose(0, 1).flatten(1)
            _set(layer, rows.mean(1), rows.var(1).clamp(min=_FLOOR * rows.var().item()))
            _disturb(layer, generator)

    hooks = [layer.register_forward_pre_hook(calibrate) for layer in layers]
    with torch.no_grad():
        network.eval()(inputs)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        if layer not in reached:
            _disturb(layer, generator)


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    if not layer.affine:
        return
    size = layer.num_features
    gamma, negative = _uniform(size, 0.6, 1.4, generator), _uniform(size, 0.0, 1.0, generator) < _NEGATIVE
    with torch.no_grad():
        layer.weight.copy_(torch.where(negative, -gamma, gamma))
        layer.bias.copy_(0.25 * torch.randn(size, generator=generator))


def _set(layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)


def _disturb(layer: nn.Module, generator: torch.Generator) -> None:
    mean, variance, size = layer.running_mean, layer.running_var, layer.num_features
    mean += 0.2 * variance.sqrt() * torch.randn(size, generator=generator)
    variance *= _uniform(size, 0.6, 1.6, generator)


def _uniform(size: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator) * (high - low) + low

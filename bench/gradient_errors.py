"""Errors of input gradients of the normalisation layers, ours and PyTorch's, against float64.

The truth is autograd through the four steps in float64, for the same float32 values.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from convscope.norm import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
NUM_GROUPS = 2


def gradient_errors(
    shape: tuple[int, int, int, int], kappas: Iterable[float], seeds: Iterable[int]
) -> dict[str, list[float]]:
    """Return for each kind, layer and layout the errors at each mean/std.

    An error is the largest one of dx in a set of values that share statistics, over the largest dx of
    that set in float64; the worst over sets and seeds.

    Args:
        shape: of the input (N, C, H, W).
        kappas: mean/std of the values.
        seeds: of the random numbers.
    """
    found = {}
    seeds = tuple(seeds)
    for kind, makes in _layers(*shape[1:]).items():
        for whose, make in makes.items():
            for name, layout in LAYOUTS.items():
                found[f"{kind} norm, {whose}, {name}"] = [
                    max(_error(kind, make(), _case(shape, kappa, seed), layout) for seed in seeds)
                    for kappa in kappas
                ]
    return found


def _layers(channels: int, *space: int) -> dict[str, dict[str, Callable[[], nn.Module]]]:
    shape = (channels, *space)
    return {
        "batch": {"torch": lambda: nn.BatchNorm2d(channels), "**ours**": lambda: BatchNorm2d(channels)},
        "layer": {"torch": lambda: nn.LayerNorm(shape), "**ours**": lambda: LayerNorm(shape)},
        "instance": {
            "torch": lambda: nn.InstanceNorm2d(channels, affine=True),
            "**ours**": lambda: InstanceNorm2d(channels, affine=True),
        },
        "group": {
            "torch": lambda: nn.GroupNorm(NUM_GROUPS, channels),
            "**ours**": lambda: GroupNorm(NUM_GROUPS, channels),
        },
    }


def _case(shape: tuple[int, ...], kappa: float, seed: int) -> tuple[Tensor, Tensor]:
    """Values and upstream gradients with a mean and a share of x̂, so that all terms of dx matter."""
    generator = torch.Generator().manual_seed(seed)
    deviation = torch.randn(shape, generator=generator)
    dy = torch.randn(shape, generator=generator) + 0.5 * deviation + 0.3
    return deviation + kappa, dy


def _error(kind: str, norm: nn.Module, case: tuple[Tensor, Tensor], layout: torch.memory_format) -> float:
    values, dy = case
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.linspace(0.5, 1.5, parameter.numel()).view_as(parameter))
    x = values.to(memory_format=layout, copy=True).requires_grad_()
    norm(x).backward(dy.to(memory_format=layout))
    assert x.grad is not None
    truth = _true_gradient(kind, norm, values.double(), dy.double())
    difference = (x.grad.double() - truth).abs()
    error = _largest(kind, difference) / _largest(kind, truth.abs())
    return error.nan_to_num(torch.inf).max().item()


def _true_gradient(kind: str, norm: nn.Module, x: Tensor, dy: Tensor) -> Tensor:
    """Autograd through the four steps in float64."""
    x.requires_grad_()
    split, dims = _sets(kind, x)
    centred = split - split.mean(dims, keepdim=True)
    xhat = centred / (centred.square().mean(dims, keepdim=True) + norm.eps).sqrt()
    weight = norm.weight.detach().double()
    weight = weight if weight.dim() == 3 else weight[:, None, None]
    (gradient,) = torch.autograd.grad(xhat.reshape(x.shape) * weight, x, dy)
    return gradient


def _sets(kind: str, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Maps as a tensor whose given dimensions span the sets of one kind."""
    if kind == "group":
        return x.unflatten(1, (NUM_GROUPS, -1)), (2, 3, 4)
    return x, {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}[kind]


def _largest(kind: str, x: Tensor) -> Tensor:
    split, dims = _sets(kind, x)
    return split.amax(dims)

"""Norms by the image's own statistics, with the statistics frozen: y = (x − mean) · rstd · γ + β is linear.

The signal is g · γ · rstd. Autograd's derivative would also send signal through the mean and the deviation,
over the whole map for group and instance norm.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convscope.probe import Visit

Signal = Callable[[tuple[Any, ...]], Tensor]


def _layer_norm(args: tuple[Any, ...]) -> Tensor:
    signal, _, _, _, rstd, weight, *_ = args
    return _scaled(signal, weight, rstd)


def _rms_norm(args: tuple[Any, ...]) -> Tensor:
    signal, _, _, rstd, weight, *_ = args
    return _scaled(signal, weight, rstd)


def _group_norm(args: tuple[Any, ...]) -> Tensor:
    signal, _, _, rstd, weight, _, channels, _, groups, *_ = args
    return _scaled(signal, _of_channels(weight, signal), _of_groups(rstd, channels // groups, signal))


def _batch_norm(args: tuple[Any, ...]) -> Tensor:
    if isinstance(args[7], bool):  # PyTorch's own: signal, input, weight, …, training, eps, mask
        signal, _, weight, _, _, _, rstd, *_ = args
    else:  # cuDNN's: input, signal, weight, …, eps, reserve
        _, signal, weight, _, _, _, rstd, *_ = args
    return _scaled(signal, _of_channels(weight, signal), _of_channels(rstd, signal))


def _gated_linear_unit(args: tuple[Any, ...]) -> Tensor:
    """The first half times σ of the second: the signal is that of the first."""
    signal, both, axis = args
    gate = both.chunk(2, axis)[1].sigmoid()
    return torch.cat([signal * gate, torch.zeros_like(gate)], axis)


BACKWARDS: dict[str, tuple[Signal, int]] = {
    "layer_norm_backward": (_layer_norm, 3),
    "_fused_rms_norm_backward": (_rms_norm, 2),
    "group_norm_backward": (_group_norm, 3),
    "batch_norm_backward": (_batch_norm, 3),
    "glu_backward": (_gated_linear_unit, 1),
    "convscope_normalise_backward": (lambda _: torch.empty(0), 1),
}
"""The signal from a backward operator's arguments, and how many results it has, by its name."""


def frozen_signal(visit: Visit) -> Any:
    """Return what a norm's or gated linear unit's backward operator returns with its statistics frozen."""
    if visit.site.op == "convscope_normalise_backward":
        signal, x, weight, mask, (shift, scale, slope, offset) = visit.args
        nothing = (torch.zeros_like(slope), torch.zeros_like(offset))
        return visit.operator(signal, x, weight, mask, (shift, scale, *nothing))
    rule, results = BACKWARDS[visit.site.op]
    signal = rule(visit.args)
    return signal if results == 1 else (signal, *(None,) * (results - 1))


def normalised_by(args: tuple[Any, ...], mean: Tensor, rstd: Tensor, own: Tensor) -> Tensor:
    """Return what a group or batch norm makes of its input with given statistics, like ``own`` in layout.

    Args:
        args: of the operator: x, γ, β and others.
        mean: one a group of every sample, or a channel.
        rstd: likewise.
        own: what it made with its own statistics.
    """
    x, weight, bias = args[:3]
    if mean.dim() == 2:
        width = x.shape[1] * x.shape[0] // mean.numel()
        mean, rstd = _of_groups(mean, width, x), _of_groups(rstd, width, x)
    else:
        mean, rstd = _of_channels(mean, x), _of_channels(rstd, x)
    scale = rstd if weight is None else rstd * _of_channels(weight, x).to(rstd.dtype)
    shift = -scale * mean
    shift = shift if bias is None else shift + _of_channels(bias, x).to(rstd.dtype)
    return torch.empty_like(own).copy_(x.to(rstd.dtype) * scale + shift)


def _scaled(signal: Tensor, weight: Tensor | None, rstd: Tensor) -> Tensor:
    signal = signal if weight is None else signal * weight
    return (signal * rstd).to(signal.dtype)


def _of_channels(values: Any, like: Tensor) -> Any:
    return None if values is None else values.reshape(-1, *(1,) * (like.dim() - 2))


def _of_groups(values: Tensor, width: int, like: Tensor) -> Tensor:
    """(n, groups) as (n, channels, 1, …)."""
    spread = values.reshape(like.shape[0], -1).repeat_interleave(width, dim=1)
    return spread.reshape(*spread.shape, *(1,) * (like.dim() - 2))

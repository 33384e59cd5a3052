"""Small networks in which a claim about batch norm can be tried in minutes.

Each is loaded like any other, by ``convscope.train.experiments.networks:NAME``; options are keywords. Two
networks of one seed that differ in ``norm`` alone have the same first weights.
"""

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.core.seeds import derived_seed
from convscope.norm import BatchNorm1d, BatchNorm2d, GroupNorm

_CHANNELS_PER_GROUP = 16
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "batch": BatchNorm2d,
    "group": lambda channels: GroupNorm(channels // _CHANNELS_PER_GROUP, channels),
    "noisy-batch": lambda channels: nn.Sequential(BatchNorm2d(channels), ShiftingNoise()),
}


class ShiftingNoise(nn.Module):
    """Noise behind a normalisation that undoes what it did: another mean and deviation in every step.

    In training, for each channel and call, a mean ``m ~ U(−shift, shift)`` and a deviation
    ``s ~ U(1, 1 + spread)`` are drawn, and each value x becomes ``s·x + m + n``, n ~ N(0, 1)/10. In
    evaluation it passes values on.

    Args:
        shift: the largest mean.
        spread: how far the deviation may exceed 1.

    Source: after Santurkar et al. 2018 (arXiv 1805.11604), section 2.1 and appendix A, who add noise of a
    non-zero mean and a non-unit variance that change in every step; this is a variant on a scale of its own.
    """

    def __init__(self, shift: float = 0.5, spread: float = 0.25) -> None:
        super().__init__()
        self.shift, self.spread = shift, spread

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the values, disturbed in training."""
        if not self.training:
            return x_NCHW
        shape = (1, x_NCHW.shape[1], *(1,) * (x_NCHW.ndim - 2))
        mean = x_NCHW.new_empty(shape).uniform_(-self.shift, self.shift)
        deviation = x_NCHW.new_empty(shape).uniform_(1.0, 1.0 + self.spread)
        return x_NCHW * deviation + mean + 0.1 * torch.randn_like(x_NCHW)


def sigmoid_network(
    norm: str = "none", num_classes: int = 10, width: int = 100, init_scale: float = 1.0
) -> tuple[nn.Module, tuple[int, ...]]:
    """Return three fully connected layers with sigmoids, as in batch norm's own first experiment.

    Images of 1×28×28, three hidden layers of ``width`` units, batch norm before each sigmoid where
    ``norm="batch"``. First weights are normal with variance ``init_scale² / fan_in``.

    Returns:
        The network and the shape of its inputs.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 4.1, who say "small random Gaussian values".
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = 28 * 28
    for number in range(1, 4):
        layers[f"fc{number}"] = nn.Linear(inputs, width)
        if _checked(norm, ("none", "batch")) == "batch":
            layers[f"norm{number}"] = BatchNorm1d(width)
        layers[f"sigmoid{number}"] = nn.Sigmoid()
        inputs = width
    layers["fc4"] = nn.Linear(width, num_classes)
    return _initialised(layers, 1.0, init_scale), (1, 1, 28, 28)


def plain_network(
    norm: str = "none", num_classes: int = 10, width: int = 32, init_scale: float = 1.0
) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a small VGG: three pairs of 3×3 convolutions, each with a 2×2 pool, and one linear layer.

    Images of 3×32×32; ``width``, twice and four times as many channels. ``norm`` is ``"none"``, ``"batch"``,
    ``"group"`` (16 channels a group) or ``"noisy-batch"`` (:class:`ShiftingNoise` behind every batch norm).

    Returns:
        The network and the shape of its inputs.
    """
    _checked(norm, tuple(_NORMS))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number in range(1, 7):
        wider = width * 2 ** ((number - 1) // 2)
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, 3, padding=1)
        layers[f"norm{number}"] = _NORMS[norm](wider)
        layers[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = wider
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * 4 * 4, num_classes)
    return _initialised(layers, 2.0, init_scale), (1, 3, 32, 32)


def shrinking_network(
    norm: str = "batch", num_classes: int = 10, width: int = 64, init_scale: float = 1.0
) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network whose maps shrink to one pixel, so that a batch norm's m is the batch itself.

    Images of 1×28×28; maps of 14×14, 7×7 and 3×3 pixels by strided 3×3 convolutions, then two layers on maps
    of 1×1, then the scores. The last two batch norms normalise as many values as there are images.

    Returns:
        The network and the shape of its inputs.
    """
    _checked(norm, ("none", "batch", "group"))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    plan = (
        (1, width, 3, 2, 1),
        (width, width, 3, 2, 1),
        (width, 2 * width, 3, 2, 0),
        (2 * width, 2 * width, 3, 1, 0),
        (2 * width, 2 * width, 1, 1, 0),
    )
    for number, (inputs, outputs, kernel, stride, padding) in enumerate(plan, 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        layers[f"norm{number}"] = _NORMS[norm](outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(2 * width, num_classes)
    return _initialised(layers, 2.0, init_scale), (1, 1, 28, 28)


def _checked(norm: str, offered: tuple[str, ...]) -> str:
    if norm not in offered:
        raise ConvscopeError(f"norm={norm!r}", f"one of {', '.join(offered)}", "choose one")
    return norm


@torch.no_grad()
def _initialised(layers: "OrderedDict[str, nn.Module]", gain: float, scale: float) -> nn.Module:
    """Fill weights with normal values of variance ``scale² · gain / fan_in``, a generator for each path."""
    base = int(torch.randint(2**62, (), device="cpu"))
    for path, layer in layers.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            generator = torch.Generator().manual_seed(derived_seed(base, path))
            deviation = scale * math.sqrt(gain / layer.weight[0].numel())
            layer.weight.normal_(0.0, deviation, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    return nn.Sequential(layers)

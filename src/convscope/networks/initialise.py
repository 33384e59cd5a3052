"""First weights of AlexNet and ZFNet.

``"kaiming"`` trains from scratch with and without batch norm: normal weights with variance
``2 / fan_in``, so that activations keep their size from layer to layer under ReLUs, and zero biases; the
last layer's standard deviation is 0.01, so that the first loss is close to ``ln(num_classes)``.
``"published"`` is what both papers used: standard deviation 0.01 everywhere, and the paper's own biases.
``"published-stem"`` is ``"kaiming"`` but for the first layer's 0.01: what a short training teaches its
filters would drown in the initial noise of 0.07 to 0.12.

Every layer draws from a generator of its own, seeded by its path: two networks that are built from one seed
and differ in a stem, a norm or a layer have the same first weights, up to a factor, wherever shapes agree.

Source: He et al. 2015 (arXiv 1502.01852), section 2.2, equation 10; Krizhevsky et al. 2012, section 5;
Zeiler and Fergus 2013 (arXiv 1311.2901), section 3.1.
"""

import math
from typing import Literal

import torch
from torch import nn

from convscope.core.seeds import derived_seed

Initialisation = Literal["kaiming", "published", "published-stem"]

_PUBLISHED_DEVIATION = 0.01


@torch.no_grad()
def initialise(
    network: nn.Module,
    kind: Initialisation,
    published_biases: tuple[float, ...],
    scale: float = 1.0,
    seed: int = 0,
) -> None:
    """Fill the weights and biases of a network's convolutions and linear layers.

    Args:
        network: its convolutions and linear layers run in the order of their registration; the last one
            gives the scores.
        kind: ``"kaiming"``, ``"published"`` or ``"published-stem"``.
        published_biases: one value a layer, which ``"published"`` sets.
        scale: factor of all weights.
        seed: of all draws, with the layers' paths.
    """
    layers = {
        path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    small = {next(reversed(layers)), *([next(iter(layers))] if kind == "published-stem" else [])}
    for (path, layer), published_bias in zip(layers.items(), published_biases, strict=True):
        published = kind == "published"
        fan_in = layer.weight[0].numel()
        deviation = _PUBLISHED_DEVIATION if published or path in small else math.sqrt(2 / fan_in)
        generator = torch.Generator().manual_seed(derived_seed(seed, path))
        draws = torch.empty(layer.weight.shape, dtype=layer.weight.dtype, device="cpu")
        layer.weight.copy_(draws.normal_(0.0, scale * deviation, generator=generator))
        if layer.bias is not None:
            layer.bias.fill_(published_bias if published else 0.0)

"""First weights of AlexNet and ZFNet.

``"kaiming"`` trains from scratch with and without batch norm: normal weights with variance
``2 / fan_in``, so that activations keep their size from layer to layer under ReLUs, and zero biases; the
last layer's standard deviation is 0.01, so that the first loss is close to ``ln(num_classes)``.
``"published"`` is what both papers used: standard deviation 0.01 everywhere, and the paper's own biases.

Source: He et al. 2015 (arXiv 1502.01852), section 2.2, equation 10; Krizhevsky et al. 2012, section 5;
Zeiler and Fergus 2013 (arXiv 1311.2901), section 3.1.
"""

import math
from typing import Literal

import torch
from torch import nn

Initialisation = Literal["kaiming", "published"]

_PUBLISHED_DEVIATION = 0.01


@torch.no_grad()
def initialise(network: nn.Module, kind: Initialisation, published_biases: tuple[float, ...]) -> None:
    """Fill the weights and biases of a network's convolutions and linear layers.

    Args:
        network: its convolutions and linear layers run in the order of their registration; the last one
            gives the scores.
        kind: ``"kaiming"`` or ``"published"``.
        published_biases: one value a layer, which ``"published"`` sets.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, published_bias in zip(layers, published_biases, strict=True):
        published = kind == "published"
        fan_in = layer.weight[0].numel()
        deviation = _PUBLISHED_DEVIATION if published or layer is layers[-1] else math.sqrt(2 / fan_in)
        layer.weight.normal_(0.0, deviation)
        if layer.bias is not None:
            layer.bias.fill_(published_bias if published else 0.0)

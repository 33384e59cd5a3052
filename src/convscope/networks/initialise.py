"""First weights of AlexNet and ZFNet.

``"kaiming"`` trains from scratch with and without batch norm: normal weights with variance
``2 / fan_in``, so that activations keep their size from layer to layer under ReLUs, and zero biases; the
last layer's standard deviation is 0.01, so that the first loss is close to ``ln(num_classes)``.
``"published"`` is what both papers used: standard deviation 0.01 everywhere, and the paper's own biases.

Every layer draws from a generator of its own, seeded by its path: two networks that are built from one seed
and differ in a stem, a norm or a layer have the same first weights, up to a factor, wherever shapes agree.

Source: He et al. 2015 (arXiv 1502.01852), section 2.2, equation 10; Krizhevsky et al. 2012, section 5;
Zeiler and Fergus 2013 (arXiv 1311.2901), section 3.1.
"""

import hashlib
import math
from typing import Literal

import torch
from torch import nn

Initialisation = Literal["kaiming", "published"]

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
        kind: ``"kaiming"`` or ``"published"``.
        published_biases: one value a layer, which ``"published"`` sets.
        scale: factor of all weights.
        seed: of all draws, with the layers' paths.
    """
    layers = {
        path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    last = next(reversed(layers))
    for (path, layer), published_bias in zip(layers.items(), published_biases, strict=True):
        published = kind == "published"
        fan_in = layer.weight[0].numel()
        deviation = _PUBLISHED_DEVIATION if published or path == last else math.sqrt(2 / fan_in)
        generator = torch.Generator().manual_seed(_seed_of(seed, path))
        draws = torch.empty(layer.weight.shape, dtype=layer.weight.dtype, device="cpu")
        layer.weight.copy_(draws.normal_(0.0, scale * deviation, generator=generator))
        if layer.bias is not None:
            layer.bias.fill_(published_bias if published else 0.0)


def _seed_of(seed: int, path: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{path}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

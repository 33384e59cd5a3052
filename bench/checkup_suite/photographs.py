"""Batches of photographs: patches of those inside scikit-image and scikit-learn, normalised, with labels."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data import load_data

Batches = list[tuple[Tensor, Tensor]]

_SIDE = 64


def photographs(number: int, size: int, seed: int, labels: int = 10) -> tuple[Tensor, Tensor]:
    """Return a random sample of 2,000 patches, (N, 3, size, size), with random labels (N,).

    Labels are random because the networks know nothing: only for labels that have nothing to do with the
    images is an untrained network as good as it can be.

    Args:
        number: N, of distinct patches.
        size: pixels; patches of 64 pixels are cropped to it, or enlarged.
        seed: of the sample.
        labels: number of classes.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(_patches()), generator=generator)[:number]
    images = _patches()[chosen]
    if size < _SIDE:
        images = images[..., :size, :size].contiguous()
    elif size > _SIDE:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images, torch.randint(0, labels, (number,), generator=generator)


def batches(number: int, batch_size: int, size: int, seed: int) -> Batches:
    """Return :func:`photographs` in batches; the last one may be smaller."""
    images, labels = photographs(number, size, seed)
    return list(zip(images.split(batch_size), labels.split(batch_size), strict=True))


@cache
def _patches() -> Tensor:
    images, _ = load_data("photos", size=_SIDE).train.stacked()
    return images

"""How many samples running statistics need: the evaluation loss against the number they are estimated on."""

import copy
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import nn

from convscope.data import ImageSet
from convscope.norm import recalibrate
from convscope.train.experiments.measures.errors import errors_on

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def precise_statistics(
    model: nn.Module,
    train: ImageSet,
    validation: ImageSet,
    sizes: Sequence[int] = SIZES,
    draws: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Return the validation loss and error with running statistics estimated on so many training images.

    Args:
        model: has batch norms; it is copied for each estimate.
        train: images that statistics are estimated on; sizes beyond its length are left out.
        validation: images that losses are of.
        sizes: numbers of images.
        draws: random choices of images for each size, whose losses are averaged.
        seed: of the choices; a larger size contains the smaller ones' images.

    Returns:
        ``"running loss"`` and ``"running error"`` with the network's own running averages;
        ``"loss N"`` and ``"error N"`` for each size N.

    Source: Wu and Johnson 2021 (arXiv 2105.07576), section 3 and figure 2, who find that 10³ to 10⁴ samples
    do on ImageNet.
    """
    own = errors_on(model, validation)
    found = {"running loss": own.loss, "running error": own.error}
    pixels, _ = train.stacked()
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(pixels), generator=generator) for _ in range(draws)]
    for size in (size for size in sizes if size <= len(pixels)):
        tried = []
        for order in orders:
            network = copy.deepcopy(model)
            recalibrate(network, torch.split(pixels[order[:size]], 64))
            tried.append(errors_on(network, validation))
        found[f"loss {size}"] = fmean(each.loss for each in tried)
        found[f"error {size}"] = fmean(each.error for each in tried)
    return found

"""How far a projection can be trusted, as numbers beside the picture.

Projections by modified backward passes are known to show the image more than the unit: those of different
units resemble one another, and in networks without max-pools a deconvnet's don't depend on the image at
all. Each score asks one question by changing one thing.

Sources: Mahendran and Vedaldi 2016, "Salient deconvolutional networks" (random positive seeds); Nie, Zhang
and Patel 2018 (arXiv 1805.07039); Zeiler and Fergus 2014, section 4.2 (masking what the picture points at).

Limits: the randomised network of Adebayo et al. 2018 isn't computed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.projection import Box, Scores
from convscope.sight.projector import Projector, at_position

NUM_SEEDS = 8
NUM_MASKS = 4
MASKED_SHARE = 0.1
ROUNDING = 1e-6  # of a projection's largest value


@dataclass(frozen=True)
class Spot:
    """One unit at one place in one image.

    Attributes:
        address: where the unit is read.
        unit: the channel.
        position: (y, x) in its map; empty for a layer without space.
        box: the pixels that it sees.
    """

    address: str
    unit: int
    position: tuple[int, ...]
    box: Box


def judge(
    projector: Projector,
    image: Float[Tensor, "1 c h w"],
    spot: Spot,
    projection: Float[Tensor, "c h w"],
) -> Scores:
    """Return the scores of a projection; see :class:`~convscope.sight.projection.Scores`."""
    generator = torch.Generator().manual_seed(0)
    return Scores(
        selectivity=_selectivity(projector, image, spot, projection, generator),
        image_dependence=_image_dependence(projector, image, spot, projection),
        masking_drop=_masking_drop(projector, image, spot, projection, generator),
    )


def _selectivity(
    projector: Projector, image: Tensor, spot: Spot, projection: Tensor, generator: torch.Generator
) -> float | None:
    leaves, maps = projector.forward(spot.address, image.expand(NUM_SEEDS, -1, -1, -1))
    seed = torch.zeros_like(maps)
    random = torch.randn(NUM_SEEDS, maps.shape[1], generator=generator).abs()
    at_position(seed, spot.position).copy_(random)
    return _difference(projection, projector.backward(leaves, maps, seed))


def _image_dependence(projector: Projector, image: Tensor, spot: Spot, projection: Tensor) -> float | None:
    others = torch.cat([image.flip(3), image.flip(2), image.flip(2, 3)])
    seeds = [(spot.unit, spot.position)] * len(others)
    found = projector.project(spot.address, others, seeds)
    # Runs of other batch sizes round otherwise, which isn't a dependence on the image.
    same = (found - projection).abs().flatten(1).amax(1) <= ROUNDING * projection.abs().max()
    found = torch.where(same[:, None, None, None], projection, found)
    difference = _difference(projection, found)
    if difference is None:
        return None
    return 0.0 if bool(same.all()) else min(max(difference, 0.0), 1.0)


def _masking_drop(
    projector: Projector, image: Tensor, spot: Spot, projection: Tensor, generator: torch.Generator
) -> float | None:
    """Grey means the image's mean colour."""
    box, size = spot.box, image.shape[2:]
    inside = torch.zeros(size, dtype=torch.bool)
    inside[box.top : box.bottom, box.left : box.right] = True
    places = inside.flatten().nonzero().flatten()
    count = max(1, int(len(places) * MASKED_SHARE))
    strength = projection.abs().sum(0).flatten().cpu()[places]
    strongest = strength.argsort(descending=True, stable=True)
    orders = [strongest, *(torch.randperm(len(places), generator=generator) for _ in range(NUM_MASKS))]
    chosen = [places[order[:count]] for order in orders]
    images = image.repeat(len(chosen) + 1, 1, 1, 1)
    grey = image.mean(dim=(2, 3)).reshape(-1, 1)
    for masked, pixels in zip(images[1:], chosen):
        masked.reshape(len(grey), -1)[:, pixels.to(image.device)] = grey
    values = at_position(projector.values(spot.address, images), spot.position)[:, spot.unit].double()
    if not values[0] > 0:
        return None
    drops = 1 - values[1:] / values[0]
    return float(drops[0] - drops[1:].mean())


def _difference(projection: Tensor, others: Tensor) -> float | None:
    """1 − mean cosine; None where a picture is empty, which has no direction."""
    picture, rest = projection.flatten().double(), others.flatten(1).double()
    norms = rest.norm(dim=1) * picture.norm()
    if not bool((norms > 0).all()):
        return None
    return float(1 - ((rest @ picture) / norms).clamp(-1, 1).mean())

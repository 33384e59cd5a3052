"""The runs that a projection is compared in: the same images turned round, and through random upper layers.

One trial serves all units of a layer that are looked for in the same images, so that a run is paid for once.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.projecting.projector import Projector

Held = Callable[[list[int]], AbstractContextManager[None]]


class Run(NamedTuple):
    """A forward pass whose graph is kept.

    Attributes:
        leaves: the images, (n, c, h, w).
        maps: the units' maps, (n, u, …).
    """

    leaves: Tensor
    maps: Tensor


@dataclass(frozen=True)
class Trial:
    """What the projections of one layer's units in some images are judged by.

    Attributes:
        address: where the units are read.
        straight: the run on the images.
        turned: runs on the same images otherwise: mirrored, or turned round.
        randomised: a run through random upper layers; None for units of the first layer, below all of these.
        weights: what stands in for the model's parameters there, also on the way back.
        grey: (n, c), the mean colour of each whole image, that masked pixels get.
        held: a context in which runs on copies of the given rows use the gates and statistics of their
            images; by the rows.
    """

    address: str
    straight: Run
    turned: tuple[Run, ...]
    randomised: Run | None
    weights: Mapping[Tensor, Tensor]
    grey: Float[Tensor, "n c"]
    held: Held


@dataclass(frozen=True)
class Effort:
    """How much is done for a score.

    Attributes:
        num_seeds: random positive seeds that the selectivity is a mean over.
        num_masks: random masks that the drop is compared with.
    """

    num_seeds: int
    num_masks: int


ONE_PICTURE = Effort(num_seeds=8, num_masks=4)
MANY_PICTURES = Effort(num_seeds=2, num_masks=1)


def turns(images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return images mirrored from left to right, from top to bottom, and both: turned by 180°.

    Example:
        >>> [turned.flatten().tolist() for turned in turns(torch.arange(4.0).reshape(1, 1, 2, 2))]
        [[1.0, 0.0, 3.0, 2.0], [2.0, 3.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]]
    """
    return images.flip(3), images.flip(2), images.flip(2, 3)


def one_image(projector: Projector, address: str, image: Float[Tensor, "1 c h w"]) -> Trial:
    """Return the trial of one layer in one whole image, with all three turns of it.

    Args:
        projector: runs the model.
        address: of the layer.
        image: the image.
    """
    straight = Run(*projector.forward(address, image))
    turned = tuple(Run(*projector.forward(address, each)) for each in turns(image))
    weights = projector.upper_weights
    with projector.standing_in(weights):
        random = Run(*projector.forward(address, image))
    held: Held = _not_held
    if projector.holds:
        frozen = projector.recorded(image)

        def held(rows: list[int]) -> AbstractContextManager[None]:
            return projector.holding(frozen.rows([0] * len(rows)))

    return Trial(address, straight, turned, unless_same(random, straight), weights, image.mean((2, 3)), held)


def _not_held(_: list[int]) -> AbstractContextManager[None]:
    return nullcontext()


def unless_same(random: Run, straight: Run) -> Run | None:
    """Return the run through random layers, or None if there were none below its maps."""
    return None if torch.equal(random.maps, straight.maps) else random

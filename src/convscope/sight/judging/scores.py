"""How far a projection can be trusted, as numbers beside the picture.

Projections by modified backward passes are known to show the image more than the unit: those of different
units resemble one another, and in networks without max-pools a deconvnet's don't depend on the image at
all. Each score asks one question by changing one thing.

Sources: Mahendran and Vedaldi 2016, "Salient deconvolutional networks" (random positive seeds); Nie, Zhang
and Patel 2018 (arXiv 1805.07039); Adebayo et al. 2018 (arXiv 1810.03292; random upper layers); Zeiler and
Fergus 2014, section 4.2 (masking what the picture points at).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.judging.moving import moves_while_held
from convscope.sight.judging.trial import ONE_PICTURE, Effort, Run, Trial, one_image
from convscope.sight.projecting.projection import Box, Scores
from convscope.sight.projecting.projector import Projector, at_position

MASKED_SHARE = 0.1
ROUNDING = 1e-6  # of a projection's largest value, or of an activation


@dataclass(frozen=True)
class Spot:
    """One unit at one place in one image, or in a window of one.

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
    projector: Projector, image: Float[Tensor, "1 c h w"], spot: Spot, projection: Float[Tensor, "c h w"]
) -> Scores:
    """Return the scores of one projection, with all effort; see :func:`judge_all`."""
    trial = one_image(projector, spot.address, image)
    return judge_all(projector, trial, [spot], projection[None], ONE_PICTURE)[0]


def judge_all(
    projector: Projector,
    trial: Trial,
    spots: Sequence[Spot],
    projections: Float[Tensor, "n c h w"],
    effort: Effort,
) -> list[Scores]:
    """Return the scores of projections, one for each of the first rows of a trial.

    A unit's random numbers are its own, so that scores don't depend on which others are judged beside it.

    Args:
        projector: runs the model.
        trial: the runs to compare in.
        spots: the unit of each row.
        projections: their pictures.
        effort: how much is done.

    Returns:
        The scores; see :class:`~convscope.sight.projecting.projection.Scores`.
    """
    generators = [torch.Generator().manual_seed(spot.unit) for spot in spots]
    selectivity = _selectivity(projector, trial, spots, projections, generators, effort.num_seeds)
    dependence = _image_dependence(projector, trial, spots, projections)
    randomisation = _randomisation(projector, trial, spots, projections)
    drop = _masking_drop(projector, trial, spots, projections, generators, effort.num_masks)
    return [Scores(*each) for each in zip(selectivity, dependence, randomisation, drop, strict=True)]


def _selectivity(
    projector: Projector,
    trial: Trial,
    spots: Sequence[Spot],
    pictures: Tensor,
    generators: list[torch.Generator],
    num_seeds: int,
) -> list[float | None]:
    run = trial.straight
    random = torch.stack(
        [torch.randn(num_seeds, run.maps.shape[1], generator=each).abs() for each in generators]
    )
    found = []
    for each in range(num_seeds):
        seed = torch.zeros_like(run.maps)
        for row, spot in enumerate(spots):
            at_position(seed, spot.position)[row] = random[row, each].to(seed)
        found.append(projector.backward(run.leaves, run.maps, seed, keep=True)[: len(spots)])
    return _mean_differences(pictures, found)


def _image_dependence(
    projector: Projector, trial: Trial, spots: Sequence[Spot], pictures: Tensor
) -> list[float | None]:
    found = [_projected(projector, run, spots) for run in trial.turned]
    # Runs of other batch sizes round otherwise, which isn't a dependence on the image.
    limit = ROUNDING * pictures.abs().amax((1, 2, 3))
    same = [(other - pictures).abs().amax((1, 2, 3)) <= limit for other in found]
    equal = torch.stack(same).all(0).tolist()
    settled = [torch.where(is_same[:, None, None, None], pictures, o) for is_same, o in zip(same, found)]
    scores = _mean_differences(pictures, settled)
    turned = [
        any(_is_another(trial.straight, run, row, spot.box) for run in trial.turned)
        for row, spot in enumerate(spots)
    ]
    return [
        None if score is None or not is_turned else 0.0 if is_equal else min(max(score, 0.0), 1.0)
        for score, is_equal, is_turned in zip(scores, equal, turned, strict=True)
    ]


def _is_another(run: Run, other: Run, row: int, box: Box) -> bool:
    """Whether the pixels that a unit sees differ between two runs: a flat image is the same when turned."""
    seen, turned = (each.leaves[row, :, box.top : box.bottom, box.left : box.right] for each in (run, other))
    return not torch.equal(seen, turned)


def _randomisation(
    projector: Projector, trial: Trial, spots: Sequence[Spot], pictures: Tensor
) -> list[float | None]:
    if trial.randomised is None:
        return [None] * len(spots)
    with projector.standing_in(trial.weights):
        found = _projected(projector, trial.randomised, spots)
    return _mean_differences(pictures, [found])


def _projected(projector: Projector, run: Run, spots: Sequence[Spot]) -> Tensor:
    seed = torch.zeros_like(run.maps)
    for row, spot in enumerate(spots):
        at_position(seed, spot.position)[row, spot.unit] = 1
    return projector.backward(run.leaves, run.maps, seed, keep=True)[: len(spots)]


def _masking_drop(
    projector: Projector,
    trial: Trial,
    spots: Sequence[Spot],
    pictures: Tensor,
    generators: list[torch.Generator],
    num_masks: int,
) -> list[float | None]:
    if projector.holds and not moves_while_held(projector.below, trial.address):
        return [None] * len(spots)
    images = trial.straight.leaves.detach()[: len(spots)]
    grey = trial.grey[: len(spots), :, None, None].to(images)
    drops = [torch.zeros(len(spots), dtype=torch.float64) for _ in range(1 + num_masks)]
    masks = [
        _masks(spot.box, picture, generator, num_masks)
        for spot, picture, generator in zip(spots, pictures, generators, strict=True)
    ]
    before = _activations(trial.straight.maps.detach(), spots)
    rows = list(range(len(spots)))
    for number, drop in enumerate(drops):
        mask = torch.stack([each[number] for each in masks])[:, None].to(images.device)
        masked = torch.where(mask, grey, images)
        with trial.held(rows):
            after = _activations(projector.values(trial.address, masked), spots)
        drop += 1 - after / before
    differences = drops[0] - torch.stack(drops[1:]).mean(0)
    settled = torch.where(differences.abs() <= ROUNDING, 0.0, differences).tolist()
    return [
        each if float(value) > 0 and bool(picture.any()) and _leaves_a_choice(spot.box) else None
        for value, each, picture, spot in zip(before, settled, pictures, spots, strict=True)
    ]


def _num_masked(num_pixels: int) -> int:
    return max(1, int(num_pixels * MASKED_SHARE))


def _leaves_a_choice(box: Box) -> bool:
    """Whether less than half of a box is masked: random pixels can be others then (of three and more)."""
    num_pixels = box.height * box.width
    return 2 * _num_masked(num_pixels) < num_pixels


def _masks(box: Box, picture: Tensor, generator: torch.Generator, num_masks: int) -> list[Tensor]:
    """(h, w) masks of a tenth of a box: the picture's strongest pixels, then random ones."""
    strength = picture.abs().sum(0)[box.top : box.bottom, box.left : box.right].flatten().cpu()
    count = _num_masked(len(strength))
    orders = [strength.argsort(descending=True, stable=True)]
    orders += [torch.randperm(len(strength), generator=generator) for _ in range(num_masks)]
    masks = []
    for order in orders:
        inside = torch.zeros(len(strength), dtype=torch.bool)
        inside[order[:count]] = True
        mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
        mask[box.top : box.bottom, box.left : box.right] = inside.reshape(box.height, box.width)
        masks.append(mask)
    return masks


def _activations(maps: Tensor, spots: Sequence[Spot]) -> Tensor:
    values = [at_position(maps, spot.position)[row, spot.unit] for row, spot in enumerate(spots)]
    return torch.stack(values).double().cpu()


def _mean_differences(pictures: Tensor, others: Sequence[Tensor]) -> list[float | None]:
    """1 − mean cosine for each row; None where its picture is empty, which has no direction.

    Another one that is empty is as unlike the picture as can be: its cosine counts as 0.
    """
    first = pictures.flatten(1).double()
    rest = torch.stack([other.flatten(1).double() for other in others])
    norms = rest.norm(dim=2) * first.norm(dim=1)
    cosines = torch.where(norms > 0, (rest * first).sum(2) / norms, 0.0).clamp(-1, 1)
    differences = 1 - cosines.mean(0)
    # Rounding of that size moves a cosine by its square.
    settled = torch.where(differences <= ROUNDING**2, 0.0, differences).tolist()
    return [
        difference if is_known else None
        for difference, is_known in zip(settled, (first.norm(dim=1) > 0).tolist(), strict=True)
    ]

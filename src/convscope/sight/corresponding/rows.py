"""From distances between pairs to a layer's rows: a part beside random patches, paired image by image."""

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.corresponding.jackknife import over_pairs
from convscope.sight.corresponding.result import Consistency, Estimate, PartRow, verdict_on
from convscope.sight.corresponding.signs import Pairs, mean_of


def part_row(name: str, marked: list[int], here: Pairs, draws: list[Pairs]) -> PartRow:
    """Return a part's row.

    Args:
        name: of the part.
        marked: indices of the images in which it is marked; rows of the distances.
        here: distances with the part masked.
        draws: the same with random patches, draw by draw.
    """
    unchanged = tuple(image for image, share in zip(marked, here.changed.tolist()) if share == 0)
    random = mean_of(draws)
    of_part, of_random = _consistency(here, []), _consistency(random, draws)
    difference = over_pairs(random.distance - here.distance) if of_part and of_random else None
    gain = over_pairs(here.agreement - random.agreement) if difference else None
    num_images = len(marked) - len(unchanged)
    return PartRow(
        part=name,
        num_images=num_images,
        unchanged=unchanged,
        here=of_part,
        random=of_random,
        difference=difference,
        agreement_gain=gain,
        verdict=verdict_on(difference),
        reason=_reason(num_images, of_part, of_random, difference),
    )


def over_parts(differences: list[Float[Tensor, "n n"]]) -> Estimate | None:
    """Return the mean over parts of paired differences, all over the same images; None without any."""
    return over_pairs(torch.stack(differences).nanmean(0)) if differences else None


def paired(here: Pairs, draws: list[Pairs], rows: list[int], num_images: int) -> Float[Tensor, "n n"]:
    """Return random patches' distances less a part's, at these rows of a matrix over all images."""
    whole = torch.full((num_images, num_images), torch.nan, dtype=torch.float64)
    index = torch.tensor(rows)
    whole[index[:, None], index] = mean_of(draws).distance - here.distance
    return whole


def _consistency(pairs: Pairs, draws: list[Pairs]) -> Consistency | None:
    delta, agreement = over_pairs(pairs.distance), over_pairs(pairs.agreement)
    if delta is None:
        return None
    upper = torch.ones_like(pairs.distance, dtype=torch.bool).triu(1) & ~pairs.distance.isnan()
    opposed = over_pairs(pairs.opposed)
    each = [estimate.value for draw in draws if (estimate := over_pairs(draw.distance)) is not None]
    return Consistency(
        delta=delta,
        agreement=agreement or Estimate(1.0),  # no pair differs, nor could: all signs are one and the same
        chance=float(pairs.chance[upper].mean()),
        opposed=opposed.value if opposed else None,
        changed=float(pairs.changed.mean()),
        num_pairs=int(upper.sum()),
        pair_spread=_spread(pairs.distance[upper]),
        draw_spread=_spread(torch.tensor(each, dtype=torch.float64)) if draws else None,
    )


def _spread(values: Float[Tensor, " p"]) -> float:
    return float(values.std()) if len(values) > 1 else 0.0


def _reason(
    num_images: int, here: Consistency | None, random: Consistency | None, difference: Estimate | None
) -> str:
    if here is None:
        return f"masking it changes the layer in {num_images} images, and a pair takes two"
    if random is None:
        return "masking random patches changes the layer in fewer than two images"
    if difference is None:
        return "no pair of images has both distances"
    if difference.low is None:
        return "an interval takes three images"
    return ""

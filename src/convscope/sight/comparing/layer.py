"""One layer of each gallery compared: partners, what they have in common, and how many changed."""

from collections.abc import Iterable
from statistics import median

from convscope.sight.comparing.likeness import Likeness
from convscope.sight.comparing.reading import LayerNumbers
from convscope.sight.comparing.result import By, LayerComparison
from convscope.sight.comparing.units import Pairing, Units

_MAJORITY = 0.5


def compared_layer(first: Units, second: Units, alike: Likeness, top: int, by: By | None) -> LayerComparison:
    """Return what became of a layer's units.

    Args:
        first: the units of one gallery's layer.
        second: those of its partner in the other.
        alike: by their profiles.
        top: how many of the strongest images are compared.
        by: how partners are found; None: what the profiles suggest.
    """
    by, reason = (by, "given") if by is not None else _chosen(first.layer, second.layer, alike)
    pairing = Pairing(first, second, alike, by, top)
    pairs = tuple(pairing.pairs())
    correlations = [found for pair in pairing.partners if (found := alike.of(*pair)) is not None]
    nearest = [pair.same_channel_is_nearest for pair in pairs if pair.same_channel_is_nearest is not None]
    sides = (first.layer, second.layer)
    return LayerComparison(
        names=(sides[0].name, sides[1].name),
        unit_addresses=(sides[0].unit_address, sides[1].unit_address),
        map_sizes=(sides[0].map_size, sides[1].map_size),
        num_units=(sides[0].num_units, sides[1].num_units),
        by=by,
        reason=reason,
        num_images=alike.num_images,
        chance=pairing.chance,
        share_matched=None if pairing.chance is None else pairing.num_alike / int(alike.has_profile[0].sum()),
        share_by_channel=sum(nearest) / len(nearest) if nearest else None,
        median_correlation=_median(correlations),
        median_overlap=_median(pair.overlap for pair in pairs),
        num_dead=(int(sides[0].dead.sum()), int(sides[1].dead.sum())),
        num_near_dead=(int(sides[0].near_dead.sum()), int(sides[1].near_dead.sum())),
        num_always_on=(_always_on(sides[0]), _always_on(sides[1])),
        num_constant=(_constant(sides[0], alike, 0), _constant(sides[1], alike, 1)),
        lost=pairing.lost(0),
        new=pairing.lost(1),
        aliased_shares=_aliased(first, second),
        pairs=pairs,
        order=tuple(sorted(range(len(pairs)), key=lambda number: -pairs[number].change)),
    )


def _chosen(first: LayerNumbers, second: LayerNumbers, alike: Likeness) -> tuple[By, str]:
    if first.num_units != second.num_units:
        return "profile", f"the layers have {first.num_units} and {second.num_units} units"
    nearest = [alike.same_channel_is_nearest(unit) for unit in range(first.num_units)]
    told = [each for each in nearest if each is not None]
    if not told:
        return "channel", "no profile says otherwise: too few images, or none in which the units differ"
    said = f"of {len(told)} units, {sum(told)} have none nearer than that of their own channel"
    return ("channel" if sum(told) >= _MAJORITY * len(told) else "profile"), said


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _always_on(layer: LayerNumbers) -> int | None:
    return None if layer.always_on is None else int(layer.always_on.sum())


def _constant(layer: LayerNumbers, alike: Likeness, side: int) -> int:
    return int((~alike.has_profile[side] & ~layer.dead).sum())


def _aliased(first: Units, second: Units) -> tuple[float | None, float | None] | None:
    if first.aliased_shares is None or second.aliased_shares is None:
        return None
    return _median(first.aliased_shares), _median(second.aliased_shares)

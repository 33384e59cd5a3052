r"""How alike two units are, and how alike they would be by chance.

Two units are as alike as their profiles, the largest activations in the same images, are correlated
(Pearson). On photographs that says little by itself: images of much contrast excite almost every unit, and
the units of two networks with random weights correlate by 0.8. So chance is taken as the larger of two
numbers:

- what units of *one* network reach with *other* units of their own layer, 95th percentile, in the layer where
  that is larger. Units of two unrelated networks of one kind are to one another what units of one network
  are, so that one in twenty of them exceeds it;
- what units reach when the images of one layer are permuted: 95th percentile of 20 permutations. That guards
  against few images and few units.

There are two such pairs of numbers: of any two units, for partners that are known beforehand, such as those
of one channel, and of each unit and the nearest one, for partners that are looked for among all.

Limits: a layer in which more than one unit in twenty is a copy of another has no chance below 1, and only
units that answer exactly alike are matched in it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CONFIDENCE = 0.95
_PERMUTATIONS = 20
_RESOLUTION = 1e-6  # of float32 profiles: variation below it is rounding
_ROUNDING = 1e-9  # of a correlation
_MOST = 2**17


@dataclass(frozen=True)
class Chance:
    """Correlations that units which have nothing to do with one another exceed one time in twenty.

    Attributes:
        partner: with a unit that is known beforehand.
        nearest: with the nearest one of the layer.
    """

    partner: float
    nearest: float


@dataclass(frozen=True)
class Likeness:
    """Of all units of one layer to all of another.

    Attributes:
        correlations: (u, v) float64; NaN where one of the two has no profile.
        has_profile: (u,) and (v,), whether a unit has one: finite and not constant.
        chance: None if no unit of one of the layers has a profile.
        num_images: that the profiles rest on.
    """

    correlations: Float[Tensor, "u v"]
    has_profile: tuple[Bool[Tensor, " u"], Bool[Tensor, " v"]]
    chance: Chance | None
    num_images: int

    def of(self, first: int, second: int) -> float | None:
        """Return the correlation of two units, or None."""
        found = float(self.correlations[first, second])
        return None if found != found else found

    def nearest(self, unit: int, *, side: int) -> tuple[int, float] | None:
        """Return the unit of the other layer that is most like one of this side's, and their correlation."""
        best, correlation = self._nearest[side][unit]
        return (best, correlation) if correlation > -torch.inf else None

    def same_channel_is_nearest(self, unit: int) -> bool | None:
        """Return whether no unit of the other layer is nearer than that of the same channel."""
        nearest = self.nearest(unit, side=0)
        if nearest is None or self.correlations.shape[0] != self.correlations.shape[1]:
            return None
        own = self.of(unit, unit)
        return own is not None and own >= nearest[1] - _ROUNDING

    @cached_property
    def _nearest(self) -> tuple[list[tuple[int, float]], ...]:
        """For all units of both sides, the nearest one of the other; −inf of those that have none."""
        known = self.correlations.nan_to_num(-torch.inf)
        return tuple(
            list(zip(table.argmax(1).tolist(), table.amax(1).tolist())) for table in (known, known.t())
        )


def likeness(first: Float[Tensor, "u k"], second: Float[Tensor, "v k"]) -> Likeness:
    """Return how alike the units of two layers are, by their profiles over the same images.

    Images that one of the layers hasn't seen (NaN) don't count.

    Example:
        >>> first = torch.tensor([[0.0, 1.0, 2.0, 4.0], [1.0, 0.0, 0.0, 2.0]])
        >>> likeness(first, first.flip(0)).correlations.diagonal().tolist() == [
        ...     likeness(first, first).of(0, 1)
        ... ] * 2
        True
    """
    seen = ~(first.isnan().any(0) | second.isnan().any(0))
    scaled = [_standardised(profile[:, seen].double()) for profile in (first, second)]
    known = [profile.isfinite().all(1) for profile in scaled]
    if not int(seen.sum()):
        known = [torch.zeros(len(profile), dtype=torch.bool) for profile in scaled]
    correlations = torch.full((len(first), len(second)), torch.nan, dtype=torch.float64)
    one, other = (profile[has] for profile, has in zip(scaled, known))
    correlations[known[0].nonzero(), known[1].nonzero().flatten()] = (one @ other.t()).clamp(-1, 1)
    chance = _chance(one, other) if len(one) and len(other) else None
    return Likeness(correlations, (known[0], known[1]), chance, int(seen.sum()))


def _standardised(profile: Float[Tensor, "u k"]) -> Float[Tensor, "u k"]:
    """Rows with mean 0 and length 1; not finite where a row is constant or not finite."""
    size = profile.abs().amax(1, keepdim=True) if profile.shape[1] else profile.sum(1, keepdim=True)
    centred = profile - profile.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    varies = length > _RESOLUTION * size * profile.shape[1] ** 0.5
    return torch.where(varies, centred / length, torch.nan)


def _chance(first: Float[Tensor, "u k"], second: Float[Tensor, "v k"]) -> Chance:
    every = [_by_permutation(first, second)]
    every += [_within(profile) for profile in (first, second) if len(profile) > 1]
    return Chance(max(each.partner for each in every), max(each.nearest for each in every))


def _within(profile: Float[Tensor, "u k"]) -> Chance:
    """What the units of one layer reach with one another."""
    table = profile @ profile.t()
    others = table[~torch.eye(len(table), dtype=torch.bool)]
    nearest = table.fill_diagonal_(-torch.inf).amax(1)
    # Units that are copies of others in both layers are to be matched all the same.
    return Chance(_high(_thinned(others)) - _ROUNDING, _high(nearest) - _ROUNDING)


def _by_permutation(first: Float[Tensor, "u k"], second: Float[Tensor, "v k"]) -> Chance:
    random = torch.Generator().manual_seed(0)
    partners, nearest = [], []
    for _ in range(_PERMUTATIONS):
        table = first @ second[:, torch.randperm(second.shape[1], generator=random)].t()
        partners.append(_thinned(table.flatten()))
        nearest += [table.amax(0), table.amax(1)]
    return Chance(_high(torch.cat(partners)) + _ROUNDING, _high(torch.cat(nearest)) + _ROUNDING)


def _thinned(values: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Evenly spaced ones of so many that sorting them would take long."""
    return values[:: -(-len(values) // _MOST)]


def _high(values: Float[Tensor, " n"]) -> float:
    return float(values.quantile(_CONFIDENCE))

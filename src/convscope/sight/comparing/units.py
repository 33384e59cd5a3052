"""Two layers unit by unit: who is whose partner, and what became of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from convscope.sight.comparing.assignment import assigned
from convscope.sight.comparing.likeness import Likeness
from convscope.sight.comparing.reading import LayerNumbers
from convscope.sight.comparing.result import By, Kind, UnitNumbers, UnitPair

_SCORES = ("selectivity", "image_dependence", "randomisation", "masking_drop")
Shares = tuple[float | None, ...] | None


@dataclass(frozen=True)
class Units:
    """The units of one layer of a gallery.

    Attributes:
        layer: their numbers.
        aliased_shares: of the filters, where the stem's diagnosis is given.
    """

    layer: LayerNumbers
    aliased_shares: Shares = None

    def __getitem__(self, index: int) -> UnitNumbers:
        columns = {name: column[index] for name, column in self._columns.items()}
        return UnitNumbers(index=index, **columns)

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """All units' numbers by name, so that none is taken out of a tensor by itself."""
        layer, missing = self.layer, [None] * self.layer.num_units
        columns: dict[str, list[Any]] = dict.fromkeys(("minimum", "mean", "std", "active_positions"), missing)
        columns |= {name: tensor.tolist() for name, tensor in layer.of_units.items()}
        columns |= {"dead": layer.dead.tolist(), "near_dead": layer.near_dead.tolist()}
        columns["always_on"] = missing if layer.always_on is None else layer.always_on.tolist()
        columns["aliased_share"] = missing if self.aliased_shares is None else list(self.aliased_shares)
        for name, column in zip(_SCORES, layer.scores.t().tolist(), strict=True):
            columns[name] = [None if score != score else score for score in column]
        return columns

    def strongest(self, index: int, top: int) -> set[int]:
        """Return a unit's strongest images, those in which it isn't positive left out."""
        values, images = self.layer.values[index, :top], self.layer.images[index, :top]
        return set(images[(values > 0) & (images >= 0)].tolist())


@dataclass(frozen=True)
class Pairing:
    """The partners in two layers.

    Attributes:
        first, second: the layers' units.
        likeness: of all of one to all of the other.
        by: how partners are found.
        top: how many of the strongest images are compared.
    """

    first: Units
    second: Units
    likeness: Likeness
    by: By
    top: int

    @cached_property
    def partners(self) -> list[tuple[int, int]]:
        """Units of the first with their partners in the second, those below chance included."""
        if self.by == "channel":
            return [(unit, unit) for unit in range(self.first.layer.num_units)]
        rows, columns = (known.nonzero().flatten() for known in self.likeness.has_profile)
        if not len(rows) or not len(columns):
            return []
        gains = self.likeness.correlations[rows[:, None], columns].numpy()
        return [(int(rows[row]), int(columns[column])) for row, column in assigned(gains)]

    def pairs(self) -> Iterator[UnitPair]:
        """Yield every unit of both layers once; found by profile, those below chance are nobody's partner."""
        partners = {
            one: other
            for one, other in self.partners
            if self.by == "channel" or self._is_like(self.likeness.of(one, other))
        }
        for one in range(self.first.layer.num_units):
            yield self._pair(one, partners.get(one))
        taken = set(partners.values())
        for other in range(self.second.layer.num_units):
            if other not in taken:
                yield self._pair(None, other)

    def lost(self, side: int) -> tuple[int, ...]:
        """Return one side's live units with a profile, to which none of the other is like above chance."""
        kept = {pair[side] for pair in self.partners if self._is_like(self.likeness.of(*pair))}
        layer = (self.first, self.second)[side].layer
        dead = layer.dead.tolist()
        if (chance := self.likeness.chance) is None:
            return ()
        return tuple(
            unit
            for unit in range(layer.num_units)
            if not dead[unit]
            and (nearest := self.likeness.nearest(unit, side=side)) is not None
            and nearest[1] <= chance.nearest
            and unit not in kept
        )

    @property
    def chance(self) -> float | None:
        """Correlation that partners reach by chance."""
        found = self.likeness.chance
        return None if found is None else found.partner if self.by == "channel" else found.nearest

    @property
    def num_alike(self) -> int:
        """How many partners are alike above chance."""
        return sum(self._is_like(self.likeness.of(*pair)) for pair in self.partners)

    def _is_like(self, correlation: float | None) -> bool:
        """Whether partners are alike above chance."""
        return correlation is not None and self.chance is not None and correlation > self.chance

    def _pair(self, one: int | None, other: int | None) -> UnitPair:
        first = None if one is None else self.first[one]
        second = None if other is None else self.second[other]
        nearest = self._nearest(*((one, 0) if one is not None else (other, 1)))
        pair = UnitPair(
            kind="unknown",
            first=first,
            second=second,
            correlation=None if one is None or other is None else self.likeness.of(one, other),
            change=0.0,
            overlap=None if one is None or other is None else self._overlap(one, other),
            nearest=None if nearest is None else nearest[0],
            nearest_correlation=None if nearest is None else nearest[1],
            same_channel_is_nearest=None if one is None else self.likeness.same_channel_is_nearest(one),
        )
        kind = self._kind(pair)
        return replace(pair, kind=kind, change=_change(pair, kind))

    def _nearest(self, unit: int | None, side: int) -> tuple[int, float] | None:
        return None if unit is None else self.likeness.nearest(unit, side=side)

    def _overlap(self, one: int, other: int) -> float | None:
        mine, theirs = self.first.strongest(one, self.top), self.second.strongest(other, self.top)
        return len(mine & theirs) / len(mine | theirs) if mine or theirs else None

    def _kind(self, pair: UnitPair) -> Kind:
        dead = [unit.dead for unit in (pair.first, pair.second) if unit is not None]
        if all(dead):
            return "dead"
        if any(dead):
            return "revived" if dead[0] else "died"
        if len(dead) == 2 and pair.correlation is not None:
            return "kept" if self._is_like(pair.correlation) else "changed"
        if len(dead) == 2 or pair.nearest_correlation is None:
            return "unknown"
        if self.likeness.chance is not None and pair.nearest_correlation > self.likeness.chance.nearest:
            return "double"
        return "lost" if pair.second is None else "new"


def _change(pair: UnitPair, kind: Kind) -> float:
    if kind in ("died", "revived"):
        return 2.0
    correlation = pair.correlation if pair.correlation is not None else pair.nearest_correlation
    return 0.0 if kind in ("dead", "unknown") or correlation is None else 1 - correlation

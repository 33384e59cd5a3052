"""What comparing two galleries finds: by layer, and by pairs of units."""

from dataclasses import dataclass
from typing import Literal

from convscope.core.finding import Finding
from convscope.core.result import Result

Kind = Literal["kept", "changed", "died", "revived", "dead", "lost", "new", "double", "unknown"]
"""What became of a unit: ``kept``: its partner is like it above chance; ``changed``: its own channel isn't
any more; ``died``, ``revived``: dead on one side only; ``dead``: on both, or without a partner; ``lost``,
``new``: nothing like it in the second or first gallery; ``double``: without a partner of its own, though a
unit that has another one is like it; ``unknown``: its profile says nothing."""

By = Literal["channel", "profile"]

_ROUNDING = 1e-9  # of a correlation


@dataclass(frozen=True)
class UnitNumbers:
    """One unit in one of the galleries; see :class:`~convscope.sight.picturing.album.Unit` for the numbers.

    Attributes:
        index: the channel.
        selectivity, image_dependence, randomisation, masking_drop: of its strongest example; None if it
            wasn't judged.
        aliased_share: of a filter of the first layer, where diagnoses of the stems are given.
    """

    index: int
    dead: bool
    near_dead: bool
    always_on: bool | None
    maximum: float
    minimum: float | None
    mean: float | None
    std: float | None
    active_images: float
    active_positions: float | None
    selectivity: float | None
    image_dependence: float | None
    randomisation: float | None
    masking_drop: float | None
    aliased_share: float | None


@dataclass(frozen=True)
class UnitPair:
    """A unit of the first gallery and its partner in the second, or one of either alone.

    Attributes:
        kind: see :data:`Kind`.
        first, second: the two; None on the side where there is no partner.
        correlation: Pearson's, of their profiles; None if there is one side only, or where a profile is
            constant.
        change: how far they are apart, by which pages sort: 1 − ``correlation``; without a partner 1 −
            ``nearest_correlation``; 2 where one side is dead; 0 where nothing is known.
        overlap: images that are among the strongest of both, by those that are of either (Jaccard's index);
            None without a partner, or if neither has any.
        nearest: the unit on the other side whose profile is most like this one's (like the first's; like the
            second's where there is no first).
        nearest_correlation: theirs.
        same_channel_is_nearest: whether no unit of the second is more like the first's than the one of the
            same channel; None if the layers differ in width, or without a correlation.
    """

    kind: Kind
    first: UnitNumbers | None
    second: UnitNumbers | None
    correlation: float | None
    change: float
    overlap: float | None
    nearest: int | None
    nearest_correlation: float | None
    same_channel_is_nearest: bool | None


@dataclass(frozen=True)
class LayerComparison:
    """One layer of each gallery. Of two numbers, the first is the first gallery's.

    Attributes:
        names, unit_addresses, map_sizes, num_units: of the two layers.
        by: how partners were found: ``"channel"``: unit i with unit i; ``"profile"``: one to one, so that the
            sum of the correlations is the largest.
        reason: why so.
        num_images: on which profiles of these layers rest.
        chance: correlation that partners have to exceed: units which have nothing to do with one another do
            so one time in twenty, see :mod:`convscope.sight.comparing.likeness`. None without profiles.
        share_matched: share of the first's units whose partner is like them above chance, of those with a
            profile; None if there are none.
        share_by_channel: share of the first's units for which no unit of the second is nearer than that of
            the same channel; chance gives 1 / units. None if the layers differ in width.
        median_correlation: of partners, those below chance included.
        median_overlap: of the pairs.
        num_dead, num_near_dead: units.
        num_always_on: likewise; None where statistics weren't collected.
        num_constant: units that aren't dead, but whose profile is constant or not finite.
        lost: channels of the first's live units that have neither a partner like them nor, among all of the
            second's, one that is nearer than chance.
        new: channels of the second's, likewise.
        aliased_shares: of the stems, where this is their layer and they are given: median over its filters.
        pairs: all units of both layers, each once: by the first's channel, then those of the second alone.
        order: numbers of the pairs, those that changed most first.
    """

    names: tuple[str, str]
    unit_addresses: tuple[str, str]
    map_sizes: tuple[tuple[int, int], tuple[int, int]]
    num_units: tuple[int, int]
    by: By
    reason: str
    num_images: int
    chance: float | None
    share_matched: float | None
    share_by_channel: float | None
    median_correlation: float | None
    median_overlap: float | None
    num_dead: tuple[int, int]
    num_near_dead: tuple[int, int]
    num_always_on: tuple[int | None, int | None]
    num_constant: tuple[int, int]
    lost: tuple[int, ...]
    new: tuple[int, ...]
    aliased_shares: tuple[float | None, float | None] | None
    pairs: tuple[UnitPair, ...]
    order: tuple[int, ...]

    def count(self, kind: Kind) -> int:
        """Return how many pairs are of a kind."""
        return sum(pair.kind == kind for pair in self.pairs)


@dataclass(frozen=True)
class GalleryComparison(Result):
    """Two galleries of the same images, unit by unit. Of two numbers, the first is the first gallery's.

    Pages find a layer in each gallery's own index by its ``unit_addresses``, and a unit's pictures there by
    its index.

    Attributes:
        folders: of the two galleries.
        digests: of the two when they were compared, see
            :attr:`~convscope.sight.picturing.album.Gallery.digest`.
        num_images: that each looked at.
        num_profile_images: on how many of them profiles rest, evenly spaced.
        top: how many of their strongest images units were compared by.
        layers_by: how layers found one another: ``"name"``, ``"order"`` or ``"given"``.
        layers: that have a partner, in the first gallery's order.
        left_out: layers without one, and why.
        findings: what changed for the worse from the first to the second, and what limits the comparison.
    """

    folders: tuple[str, str]
    digests: tuple[str, str]
    num_images: tuple[int, int]
    num_profile_images: int
    top: int
    layers_by: Literal["name", "order", "given"]
    layers: tuple[LayerComparison, ...]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def is_unchanged(self) -> bool:
        """Whether no layer is left out, and all units have the same channel, numbers and profile."""
        pairs = [pair for layer in self.layers for pair in layer.pairs]
        return not self.left_out and all(
            pair.first == pair.second and pair.change <= _ROUNDING for pair in pairs
        )

"""What a scan keeps of one layer's units: each one's strongest images, and its statistics.

Its size depends on the number of units, not on the number of images. Of each map only the largest value is
taken; where it lies is looked up for those alone that enter a unit's list, which soon are few.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.profile import Profile
from convscope.sight.collecting.statistics import Statistics

NEAR_DEAD = 0.01
_PIECE = 2**20  # activations among which places are looked up in one go


@dataclass
class Tally:
    """What is known about one layer's units after some images.

    Two tallies of different images merge to exactly what one of all of them would be, in whatever order.

    Attributes:
        values: (u, top) float64, largest activations, one per image, in descending order; −inf where there is
            none.
        images: (u, top) int64, their images, −1 where there is none; of equal activations the earlier image
            comes first.
        places: (u, top) int64, y·width + x of each in its map, the first of equal ones.
        maximum: (u,) float64, over all images and positions.
        num_active_images: (u,) int64, images in which the unit is positive somewhere.
        profile: largest activations in some images, chosen beforehand.
        num_images: images seen.
        size: (height, width) of the maps; None before the first.
        statistics: None where they aren't collected.

    Example:
        >>> tally = Tally.empty(num_units=2, top=1)
        >>> tally.add(torch.tensor([[[[1.0, 3.0]], [[-1.0, -2.0]]]]), [5])
        >>> tally.values.flatten().tolist(), tally.places.flatten().tolist(), tally.dead.tolist()
        ([3.0, -1.0], [1, 0], [False, True])
    """

    values: Float[Tensor, "u top"]
    images: Int[Tensor, "u top"]
    places: Int[Tensor, "u top"]
    maximum: Float[Tensor, " u"]
    num_active_images: Int[Tensor, " u"]
    profile: Profile
    num_images: int = 0
    size: tuple[int, int] | None = None
    statistics: Statistics | None = None

    @classmethod
    def empty(
        cls, num_units: int, top: int, *, statistics: bool = True, profiled: Sequence[int] = ()
    ) -> "Tally":
        """Return a tally of nothing, which collects statistics or doesn't, and the profile of some images."""
        return cls(
            values=torch.full((num_units, top), -torch.inf, dtype=torch.float64),
            images=torch.full((num_units, top), -1, dtype=torch.int64),
            places=torch.zeros((num_units, top), dtype=torch.int64),
            maximum=torch.full((num_units,), -torch.inf, dtype=torch.float64),
            num_active_images=torch.zeros(num_units, dtype=torch.int64),
            profile=Profile.empty(num_units, profiled),
            statistics=Statistics.empty(num_units) if statistics else None,
        )

    def add(self, maps: Float[Tensor, "n u h w"], indices: list[int], number: int | None = None) -> None:
        """Take a batch of maps into account.

        Args:
            maps: of any floating dtype and memory format.
            indices: of its images, ascending; they follow all that this tally has seen.
            number: of the batch among all batches; None where all are added one after the other.

        Raises:
            ConvscopeError: an activation is NaN, which would pass for a dead unit, or the maps are of
                another size than those before.
        """
        # Adding zero makes 0 of −0: which of the two is the larger one depends on the order.
        peaks = maps.amax((2, 3)).to("cpu", self.values.dtype).t() + 0.0
        self._check(maps, peaks, indices)
        if self.statistics is not None:
            self.statistics.add(maps, self._next_number() if number is None else number)
        self._rank(maps, peaks, indices)
        self.profile.add(peaks, indices)
        self.size = (maps.shape[2], maps.shape[3])
        self.maximum = torch.maximum(self.maximum, peaks.amax(1))
        self.num_active_images += (peaks > 0).sum(1)
        self.num_images += maps.shape[0]

    def skip(self, number: int) -> None:
        """Take note that the batch of this number has nothing for these units."""
        if self.statistics is not None:
            self.statistics.skip(number)

    def merge(self, other: "Tally") -> None:
        """Take into account what another tally saw, of other batches."""
        values = torch.cat((self.values, other.values), dim=1)
        images = torch.cat((self.images, other.images), dim=1)
        by_image = images.sort(dim=1, stable=True).indices
        by_value = values.gather(1, by_image).sort(dim=1, descending=True, stable=True).indices
        order = by_image.gather(1, by_value)[:, : self.values.shape[1]]
        self.values, self.images = values.gather(1, order), images.gather(1, order)
        self.places = torch.cat((self.places, other.places), dim=1).gather(1, order)
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.num_active_images = self.num_active_images + other.num_active_images
        self.profile.merge(other.profile)
        self.num_images += other.num_images
        self.size = self.size or other.size
        if self.statistics is not None and other.statistics is not None:
            self.statistics.merge(other.statistics)

    @property
    def width(self) -> int:
        """Of the maps."""
        return self.size[1] if self.size else 1

    @property
    def dead(self) -> Bool[Tensor, " u"]:
        """Whether a unit was positive nowhere."""
        return ~(self.maximum > 0)

    def near_dead(self, share: float = NEAR_DEAD) -> Bool[Tensor, " u"]:
        """Return whether a unit was positive somewhere, but in less than ``share`` of the images."""
        return ~self.dead & (self.active_images < share)

    @property
    def active_images(self) -> Float[Tensor, " u"]:
        """Share of the images in which the unit is positive somewhere."""
        return self.num_active_images.double() / max(self.num_images, 1)

    @property
    def always_on(self) -> Bool[Tensor, " u"]:
        """Whether a unit was positive everywhere in every image."""
        return (self.minimum > 0) & (self.num_images > 0)

    @property
    def minimum(self) -> Float[Tensor, " u"]:
        """Over all images and positions; this and the next need statistics."""
        return self._collected.minimum

    @property
    def mean(self) -> Float[Tensor, " u"]:
        """See :attr:`~convscope.sight.collecting.statistics.Statistics.mean`."""
        return self._collected.mean

    @property
    def std(self) -> Float[Tensor, " u"]:
        """See :attr:`~convscope.sight.collecting.statistics.Statistics.std`."""
        return self._collected.std

    @property
    def active_positions(self) -> Float[Tensor, " u"]:
        """See :attr:`~convscope.sight.collecting.statistics.Statistics.active_positions`."""
        return self._collected.active_positions

    @property
    def _collected(self) -> Statistics:
        assert self.statistics is not None, "scanned without statistics"
        return self.statistics

    def _check(self, maps: Tensor, peaks: Tensor, indices: list[int]) -> None:
        if bool(peaks.isnan().any()):
            unit, row = peaks.isnan().nonzero()[0].tolist()
            raise ConvscopeError(
                f"unit {unit} of a layer of {len(peaks)}, which is NaN in image {indices[row]}",
                "activations that are numbers",
                "look for NaN or infinite weights, or run in a wider dtype",
            )
        if self.size is not None and self.size != (maps.shape[2], maps.shape[3]):
            raise ConvscopeError(
                f"image {indices[0]}, whose maps are {maps.shape[2]}×{maps.shape[3]} where those of other "
                f"images are {self.size[0]}×{self.size[1]}",
                "images of one size",
                "resize or crop them to the network's input size",
            )

    def _rank(self, maps: Tensor, peaks: Float[Tensor, "u n"], indices: list[int]) -> None:
        # Only a larger value than the last one's enters: of an equal one the image comes later.
        assert indices[0] > int(self.images.max())
        units = (peaks > self.values[:, -1:]).any(1).nonzero().flatten()
        if not len(units):
            return
        top = self.values.shape[1]
        ranked = torch.cat((self.values[units], peaks[units]), dim=1)
        images = torch.cat((self.images[units], torch.tensor(indices).expand(len(units), -1)), dim=1)
        # A stable order keeps equal activations in the order of their images.
        order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :top]
        places = self.places[units].gather(1, order.clamp(max=top - 1))
        entered, ranks = (order >= top).nonzero(as_tuple=True)
        rows = order[entered, ranks] - top
        places[entered, ranks] = _places(maps, rows, units[entered])
        self.values[units], self.images[units] = ranked.gather(1, order), images.gather(1, order)
        self.places[units] = places

    def _next_number(self) -> int:
        assert self.statistics is not None
        return sum(1 << level for level, _ in self.statistics.sums.nodes)


def _places(maps: Tensor, rows: Int[Tensor, " k"], units: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """Where the maps of some images and units are largest."""
    size = max(_PIECE // (maps.shape[2] * maps.shape[3]), 1)
    pairs = zip(torch.split(rows.to(maps.device), size), torch.split(units.to(maps.device), size))
    return torch.cat([_chosen(maps, row, unit).flatten(1).argmax(1).cpu() for row, unit in pairs])


def _chosen(maps: Tensor, rows: Int[Tensor, " k"], units: Int[Tensor, " k"]) -> Float[Tensor, "k h w"]:
    """The maps of some images and units; twice as fast where they lie one after the other."""
    if not maps.is_contiguous():
        return maps[rows, units]
    return maps.flatten(0, 1).index_select(0, rows * maps.shape[1] + units)

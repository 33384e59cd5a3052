"""One pass over a data set: every unit's strongest images and its statistics.

Memory depends on the number of units, not on the number of images. Of each map only the largest value is
taken; where it lies is looked up for those alone that enter a unit's list, which soon are few.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, Visit, probing
from convscope.sight.images import ImageSource
from convscope.sight.projector import for_model
from convscope.sight.units import UnitMaps


@dataclass
class Tally:
    """What is known about one layer's units after some images.

    Attributes:
        values: (u, top) largest activations, one per image, in descending order; −inf where there is none.
        images: (u, top) indices of their images; of equal activations the earlier image comes first.
        places: (u, top) y·width + x of each in its map, the first of equal ones.
        width: of the maps.
        maximum, minimum: (u,) over all images and positions.
        total: (u,) sum of all activations, in float64.
        active: (u,) number of images in which the unit is positive somewhere.
        num_values: activations seen per unit.
        num_images: images seen.
    """

    values: Float[Tensor, "u top"]
    images: Int[Tensor, "u top"]
    places: Int[Tensor, "u top"]
    maximum: Float[Tensor, " u"]
    minimum: Float[Tensor, " u"]
    total: Float[Tensor, " u"]
    active: Int[Tensor, " u"]
    width: int = 1
    num_values: int = 0
    num_images: int = 0

    @classmethod
    def empty(cls, num_units: int, top: int) -> "Tally":
        """Return a tally of nothing."""
        return cls(
            values=torch.full((num_units, top), -torch.inf, dtype=torch.float64),
            images=torch.full((num_units, top), -1, dtype=torch.int64),
            places=torch.zeros((num_units, top), dtype=torch.int64),
            maximum=torch.full((num_units,), -torch.inf, dtype=torch.float64),
            minimum=torch.full((num_units,), torch.inf, dtype=torch.float64),
            total=torch.zeros(num_units, dtype=torch.float64),
            active=torch.zeros(num_units, dtype=torch.int64),
        )

    def add(self, maps: Float[Tensor, "n u h w"], indices: list[int]) -> None:
        """Take a batch of maps into account; ``indices`` are its images' and follow all earlier ones.

        Raises:
            ConvscopeError: an activation is NaN, which would pass for a dead unit.
        """
        peaks = maps.amax((2, 3)).to("cpu", self.values.dtype).t()
        if bool(peaks.isnan().any()):
            unit, row = peaks.isnan().nonzero()[0].tolist()
            raise ConvscopeError(
                f"unit {unit} of a layer of {len(peaks)}, which is NaN in image {indices[row]}",
                "activations that are numbers",
                "look for NaN or infinite weights, or run in a wider dtype",
            )
        self._rank(maps, peaks, indices)
        self.width = maps.shape[3]
        self.maximum = torch.maximum(self.maximum, peaks.amax(1))
        self.minimum = torch.minimum(self.minimum, maps.amin((0, 2, 3)).to(self.minimum))
        self.total += maps.sum((2, 3)).to("cpu", torch.float64).sum(0)
        self.active += (peaks > 0).sum(1)
        self.num_values += maps.shape[0] * maps.shape[2] * maps.shape[3]
        self.num_images += maps.shape[0]

    def _rank(self, maps: Tensor, peaks: Tensor, indices: list[int]) -> None:
        top = self.values.shape[1]
        ranked = torch.cat([self.values, peaks], dim=1)
        images = torch.cat([self.images, torch.tensor(indices).expand(len(peaks), -1)], dim=1)
        # A stable order keeps equal activations in the order of their images.
        order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :top]
        self.values, self.images = ranked.gather(1, order), images.gather(1, order)
        units, ranks = (order >= top).nonzero(as_tuple=True)
        self.places = self.places.gather(1, order.clamp(max=top - 1))
        rows = order[units, ranks] - top
        on_device = rows.to(maps.device), units.to(maps.device)
        self.places[units, ranks] = maps[on_device].flatten(1).argmax(1).cpu()

    @property
    def dead(self) -> Tensor:
        """(u,) whether a unit was positive nowhere."""
        return ~(self.maximum > 0)

    @property
    def mean(self) -> Tensor:
        """(u,) mean activation."""
        return self.total / max(self.num_values, 1)


def scan(model: nn.Module, images: ImageSource, units: tuple[UnitMaps, ...], top: int) -> dict[str, Tally]:
    """Return a tally per layer, by the units' address, after one pass over the images.

    Args:
        model: runs in evaluation mode and comes back as it was.
        images: all of them are looked at.
        units: the layers to watch.
        top: how many images to keep per unit.

    Raises:
        ConvscopeError: the network doesn't take the images, or there are none.
    """
    tallies = {unit.unit_address: Tally.empty(unit.num_units, top) for unit in units}
    batch: list[int] = []

    def reader(visit: Visit, result: Any) -> None:
        # Normalisations return their statistics besides their maps.
        maps = result[0] if isinstance(result, tuple) else result
        tallies[str(visit.site.address)].add(maps, batch)

    with torch.no_grad(), probing(model) as probe:
        for unit in units:
            probe.read(unit.unit_address, reader)
        for indices, tensor in images.batches():
            batch[:] = indices
            with named_failure(tensor, indices, probe):
                model(for_model(model, tensor))
    return tallies


@contextmanager
def named_failure(tensor: Float[Tensor, "n c h w"], indices: list[int], probe: Probe) -> Iterator[None]:
    """Run a model on a batch; what goes wrong is told with the images and the module.

    Raises:
        ConvscopeError: the model doesn't take the images.
    """
    try:
        yield
    except ConvscopeError:
        raise
    except Exception as error:
        raise _not_taken(tensor, indices, probe.attribution.failed_in, error) from error


def _not_taken(tensor: Tensor, indices: list[int], where: str, error: Exception) -> ConvscopeError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConvscopeError(
        f"images {indices[0]} to {indices[-1]} of shape {tuple(tensor.shape[1:])} fail in {where} ({reason})",
        "images of the size and channels that the network takes",
        "resize them",
    )

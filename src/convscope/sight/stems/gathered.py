"""What the images show of the first convolution: its units' extremes, the pixels' size, some images."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.sight.collecting.passing import named_failure
from convscope.sight.images import ImageSource
from convscope.sight.projecting.projector import for_model
from convscope.sight.units.maps import UnitMaps

NUM_SPECTRA = 64
KEPT_BYTES = 2**28
"""What the images that are looked at more closely may take; there are fewer of large ones."""


@dataclass
class Gathered:
    """One pass over all images, as far as the first units.

    Attributes:
        maximum, minimum: (o,) of the units.
        kept: some images (1, c, h, w), evenly spaced, as the network gets them, on the CPU.
        num_images, num_pixels, squares, largest: of all images' values.
    """

    maximum: Float[Tensor, " o"]
    minimum: Float[Tensor, " o"]
    kept: list[Tensor] = field(default_factory=list)
    num_images: int = 0
    num_pixels: int = 0
    squares: float = 0.0
    largest: float = 0.0

    def add(self, pixels: Tensor, maps: Float[Tensor, "n o h w"], indices: list[int]) -> None:
        """Take a batch into account.

        Raises:
            ConvscopeError: an activation is NaN or infinite.
        """
        peaks, lows = (found.to("cpu", torch.float64) for found in (maps.amax((2, 3)), maps.amin((2, 3))))
        infinite = ~(peaks.isfinite() & lows.isfinite())
        if bool(infinite.any()):
            row, unit = infinite.nonzero()[0].tolist()
            shown = "NaN" if bool(peaks[row, unit].isnan()) else "infinite"
            raise ConvscopeError(
                f"unit {unit} of the first convolution, which is {shown} in image {indices[row]}",
                "activations that are finite numbers",
                "look for NaN or infinite weights, or run in a wider dtype",
            )
        self.maximum = torch.maximum(self.maximum, peaks.amax(0))
        self.minimum = torch.minimum(self.minimum, lows.amin(0))
        self.num_images += len(pixels)
        self.num_pixels += pixels.numel()
        self.squares += float(pixels.double().square().sum())
        self.largest = max(self.largest, float(pixels.abs().max()))

    @property
    def rms(self) -> float:
        """Root mean square of the pixels."""
        return math.sqrt(self.squares / self.num_pixels)


def gathered(model: nn.Module, images: ImageSource, units: UnitMaps) -> Gathered:
    """Run a network on all images as far as its first units.

    Raises:
        ConvscopeError: no images, or some that the network doesn't take or makes NaN of.
    """
    bytes_each = images.sample()[:1].numel() * 4
    chosen = images.spread(min(NUM_SPECTRA, max(1, KEPT_BYTES // bytes_each)))
    infinite = torch.full((units.num_units,), torch.inf, dtype=torch.float64)
    found = Gathered(-infinite, infinite)
    with torch.no_grad(), probing(model) as probe:
        for indices, batch in images.batches():
            pixels = for_model(model, batch)
            with named_failure(pixels, indices, probe):
                found.add(pixels, probe.run_until(units.unit_address, pixels), indices)
            rows = [row for row, index in enumerate(indices) if index in chosen]
            found.kept += [pixels[row : row + 1].cpu() for row in rows]
    return found

"""``stem``: what Zeiler and Fergus saw in AlexNet's first layer by eye, as numbers.

They found filters that dominate, dead ones, and aliasing by the stride of 4, and changed 11×11/4 to 7×7/2.

Limits: the first convolution only; aliasing is measured before the activation function, which adds
frequencies of its own, and without the pooling that follows.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Visit, probing
from convscope.sight.diagnosis import Filter, Stem, WhatIf
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projector import check_model, for_model
from convscope.sight.scan import Tally, named_failure
from convscope.sight.spectrum import Convolution, Stride, energies
from convscope.sight.symptoms import symptoms_of
from convscope.sight.tiles import filter_grid
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units import UnitMaps, units_of
from convscope.tape import device_of, record

NUM_SPECTRA = 64
WHAT_IF: tuple[Stride, ...] = ((1, 1), (2, 2), (4, 4))


def stem(model: nn.Module, images: ImageSource | Source) -> Stem:
    """Return the diagnosis of a network's first convolution on some images.

    Per filter: the weights' RMS and how it compares with the others', whether the unit (after normalisation
    and activation) ever fires, and the share of its response's energy beyond the Nyquist frequency of the
    stride: the convolution is run with stride 1 on up to 64 evenly spaced images, the mean is taken away, a
    Hann window applied, and |FFT|² with |f| > 1/(2·stride) compared with all of it. The same filters with
    strides 1, 2 and 4 stand beside it.

    Args:
        model: any eager network for images; runs in evaluation mode as far as its first units, and comes
            back as it was.
        images: see :func:`~convscope.sight.gallery.gallery`.

    Raises:
        ConvscopeError: no images, some that the network doesn't take or with NaN or infinite values; no
            convolution over the image.

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), sections 3 and 4.1.

    Example:
        >>> found = stem(nn.Sequential(nn.Conv2d(3, 8, 7, stride=2), nn.ReLU()), torch.rand(4, 3, 40, 40))
        >>> found.kernel, found.stride, [what.aliased_share for what in found.what_if][0]
        ((7, 7), (2, 2), 0.0)
    """
    with undisturbed():
        return _stem(model, image_source(images))


def _stem(model: nn.Module, images: ImageSource) -> Stem:
    check_model(model, differentiated=False)
    units, _ = units_of(record(model, for_model(model, images.sample()), device=device_of(model)))
    if not units:
        raise ConvscopeError(
            "a network without convolutions over the image", "at least one", "try another network"
        )
    look = _Look(units[0], images.spread(NUM_SPECTRA))
    with torch.no_grad(), probing(model) as probe:
        probe.read(look.units.address, look.at_convolution)
        for indices, batch in images.batches():
            pixels = for_model(model, batch)
            look.indices = indices
            look.squares += float(pixels.double().square().sum())
            look.num_pixels += pixels.numel()
            with named_failure(pixels, indices, probe):
                maps = probe.run_until(look.units.unit_address, pixels)
            look.tally.add(maps, indices)
    return _diagnosed(look)


@dataclass
class _Look:
    """What is gathered while the images go through.

    Attributes:
        units: the first convolution's.
        chosen: the images whose spectra are taken.
    """

    units: UnitMaps
    chosen: frozenset[int]
    indices: list[int] = field(default_factory=list)
    convolution: Convolution | None = None
    num_spectra: int = 0
    squares: float = 0.0
    num_pixels: int = 0

    def __post_init__(self) -> None:
        self.tally = Tally.empty(self.units.num_units, 1)
        self.total = torch.zeros(self.units.num_units, dtype=torch.float64)
        self.beyond = torch.zeros(len(WHAT_IF) + 1, self.units.num_units, dtype=torch.float64)

    def at_convolution(self, visit: Visit, _: Tensor) -> None:
        images, weight, _, stride, padding, dilation, transposed, _, groups = visit.args
        if transposed:
            raise ConvscopeError(
                f"{visit.site.address}, a transposed convolution",
                "an ordinary one first",
                "it has no stride to judge",
            )
        vertical, horizontal = (tuple(stride) * 2)[:2]
        self.convolution = Convolution(weight.detach(), (vertical, horizontal), padding, dilation, groups)
        rows = [row for row, index in enumerate(self.indices) if index in self.chosen]
        # One image at a time: dense maps are stride² times as large as the network's own.
        for row in rows:
            dense = self.convolution.dense(images[row : row + 1])
            total, beyond = energies(dense, (self.convolution.stride, *WHAT_IF))
            self.total += total
            self.beyond += beyond
        self.num_spectra += len(rows)


def _diagnosed(look: _Look) -> Stem:
    convolution = look.convolution
    assert convolution is not None
    weight = convolution.weight.double().cpu()
    rms = weight.square().mean((1, 2, 3)).sqrt()
    shares = look.beyond / look.total
    typical = [_median(share) for share in shares]
    filters = tuple(
        Filter(
            index=index,
            weight_rms=float(rms[index]),
            dominance=float(rms[index] / rms.median().clamp(min=1e-30)),
            aliased_share=float(shares[0, index]),
            maximum=float(look.tally.maximum[index]),
            dead=bool(look.tally.dead[index]),
        )
        for index in range(look.units.num_units)
    )
    result = Stem(
        grid=filter_grid(weight),
        name=look.units.name,
        address=look.units.address,
        unit_address=look.units.unit_address,
        kernel=(weight.shape[2], weight.shape[3]),
        stride=convolution.stride,
        num_images=look.tally.num_images,
        num_spectra=look.num_spectra,
        input_rms=(look.squares / look.num_pixels) ** 0.5,
        aliased_share=typical[0],
        filters=filters,
        what_if=tuple(WhatIf(stride, share) for stride, share in zip(WHAT_IF, typical[1:])),
        findings=(),
    )
    return symptoms_of(result)


def _median(shares: Tensor) -> float | None:
    """Over the filters that respond at all."""
    known = shares[shares.isfinite()]
    return float(known.quantile(0.5)) if len(known) else None

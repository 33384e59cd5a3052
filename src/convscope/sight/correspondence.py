"""``correspondence``: does a layer answer to the same part in the same way in different images?

Zeiler and Fergus masked the same part of the face in five pictures of dogs, and compared how a layer's
features change: if the layer establishes correspondence, they change alike.

Limits: signs only, as in the paper: sizes of changes don't count. A part at the image's border changes fewer
features than a patch inside, and looks more consistent for it. All images have one size. The memory for
one kind of mask is a byte per image and feature of the chosen layers; each costs two forward passes.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int8
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.sight.corresponding.features import FeatureReader, Site, reading_features
from convscope.sight.corresponding.marks import Boxes, Mark, Masking, masked, random_patches, read_marks
from convscope.sight.corresponding.remarks import remarks
from convscope.sight.corresponding.result import Correspondence, CorrespondingLayer, PartRow, verdict_on
from convscope.sight.corresponding.rows import over_parts, paired, part_row
from convscope.sight.corresponding.signs import Pairs, compare_signs
from convscope.sight.corresponding.sites import sites_of
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import check_model, for_model
from convscope.sight.undisturbed import undisturbed
from convscope.tape import device_of, record


def correspondence(
    model: nn.Module,
    images: ImageSource | Source,
    parts: Mapping[str, Sequence[Mark]],
    layers: str | list[str] | tuple[str, ...] = "all",
    masking: Masking | None = None,
) -> Correspondence:
    """Return how consistently masking a part changes each layer, beside masking random patches.

    With x the features of image i in a layer and x̃ those with the part masked, εᵢ = x − x̃, and

        Δ = mean over pairs i ≠ j of H(sign εᵢ, sign εⱼ),

    with H the share of *all* elements whose signs (−1, 0, 1) differ. The paper prints a sum and doesn't
    define H of three values; its figures of about 0.07 fit this mean. Since zeros that coincide agree, a
    mask which changes little has a small Δ: so Cohen's κ, in which agreement by chance doesn't count, stands
    beside it, and the share of opposite signs among the elements that change in both images (independent
    signs: 0.5). Random patches have the part's sizes, image by image.

    Intervals are of 95 %, by the jackknife over images, since pairs share images; the difference between
    random patches and the part is taken pair by pair. Each verdict stands for itself: of twenty layers
    without any correspondence one may be called consistent.

    Args:
        model: any eager network for images; runs in evaluation mode and comes back as it was.
        images: normalised for the network; see :func:`~convscope.sight.gallery.gallery`.
        parts: marks by the part's name, one for every image: a box ``(top, left, bottom, right)`` in pixels,
            a point ``(y, x)`` with ``Masking(size=…)``, or None where the part isn't seen.
        layers: ``"all"`` convolutions (their units after normalisation and activation), or names of
            convolutions, of other modules (their output), or addresses.
        masking: see :class:`~convscope.sight.corresponding.marks.Masking`.

    Raises:
        ConvscopeError: fewer than two images; marks that don't fit them; an unknown layer, or one whose
            features depend on the other images of a batch or aren't finite; images that the network doesn't
            take; a model on the meta device.

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.3 and table 1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10))
        >>> marks = {"middle": [(4, 4, 8, 8)] * 6}
        >>> found = correspondence(net, torch.rand(6, 3, 12, 12), marks, ["0", "3"], Masking(draws=3))
        >>> [(layer.name, layer.shape, layer.parts[0].here.num_pairs) for layer in found.layers]
        [('0', (4, 10, 10), 15), ('3', (10,), 15)]
    """
    if masking is not None and not isinstance(masking, Masking):
        raise ConvscopeError(
            f"masking of type {type(masking).__name__}", "a Masking, or None", "Masking(draws=20), say"
        )
    masking = masking or Masking()
    with undisturbed():
        return _correspondence(model, image_source(images), parts, layers, masking)


def _correspondence(
    model: nn.Module,
    images: ImageSource,
    parts: Mapping[str, Sequence[Mark]],
    layers: str | list[str] | tuple[str, ...],
    masking: Masking,
) -> Correspondence:
    check_model(model, differentiated=False)
    first = for_model(model, images.sample())
    size = (first.shape[2], first.shape[3])
    boxes = read_marks(parts, size, masking.size)
    boxes, unread = _of_read_images(images, boxes)
    tape = record(model, first, device=device_of(model))
    sites, left_out = sites_of(model, tape, layers)
    fill = masking.colour(first.shape[1])
    with reading_features(model, sites) as reader:
        run = _Run(model, images, reader, fill)
        measured = {name: _measure(run, each, size, masking) for name, each in boxes.items()}
    found = tuple(_layer(site, tape.values[site.value].shape[1:], boxes, measured) for site in sites)
    return Correspondence(
        num_images=len(next(iter(boxes.values()))) - len(unread),
        unread=unread,
        parts=tuple(boxes),
        draws=masking.draws,
        placement=masking.placement,
        seed=masking.seed,
        fill=fill,
        layers=found,
        left_out=left_out,
        findings=remarks(found, boxes, size, masking),
    )


class _Run:
    """Measures one kind of mask after another over the same images."""

    def __init__(
        self, model: nn.Module, images: ImageSource, reader: FeatureReader, fill: tuple[float, ...]
    ) -> None:
        self._model, self._images, self._reader, self._fill = model, images, reader, fill
        self._known: dict[Boxes, dict[str, Pairs]] = {}

    def pairs(self, boxes: Boxes) -> dict[str, Pairs]:
        """Return the distances between the marked images, by the address of the features."""
        if boxes not in self._known:
            self._known[boxes] = self._measured({i: box for i, box in enumerate(boxes) if box is not None})
        return self._known[boxes]

    def _measured(self, boxes: dict[int, Box]) -> dict[str, Pairs]:
        signs: dict[str, list[Int8[Tensor, "n d"]]] = {}
        for indices, batch in self._images.batches(boxes):
            pixels = for_model(self._model, batch)
            hidden = masked(pixels, [boxes[index] for index in indices], self._fill)
            for address, rows in self._reader.signs(pixels, hidden, indices).items():
                signs.setdefault(address, []).append(rows)
        return {address: compare_signs(torch.cat(rows)) for address, rows in signs.items()}


_Measured = tuple[dict[str, Pairs], list[dict[str, Pairs]]]


def _measure(run: _Run, boxes: Boxes, image_size: tuple[int, int], masking: Masking) -> _Measured:
    """A part's distances, and those of every draw of random patches."""
    draws = [random_patches(boxes, image_size, masking, draw) for draw in range(masking.draws)]
    return run.pairs(boxes), [run.pairs(each) for each in draws]


def _layer(
    site: Site, shape: tuple[int, ...], boxes: dict[str, Boxes], measured: dict[str, _Measured]
) -> CorrespondingLayer:
    rows, differences = list[PartRow](), list[Tensor]()
    for name, each in boxes.items():
        marked = [index for index, box in enumerate(each) if box is not None]
        here, draws = measured[name][0][site.address], [draw[site.address] for draw in measured[name][1]]
        rows.append(part_row(name, marked, here, draws))
        differences.append(paired(here, draws, marked, len(each)))
    difference = over_parts(differences)
    return CorrespondingLayer(
        site.name, site.address, tuple(shape), tuple(rows), difference, verdict_on(difference)
    )


def _of_read_images(images: ImageSource, boxes: dict[str, Boxes]) -> tuple[dict[str, Boxes], tuple[int, ...]]:
    """The boxes without those of images that can't be read, and the indices of these."""
    read = {index for indices, _ in images.batches() for index in indices}
    num_marks = len(next(iter(boxes.values())))
    is_whole = len(read) == num_marks or bool(getattr(images, "damaged", ()))
    if max(read) >= num_marks or not is_whole:
        raise ConvscopeError(
            f"marks for {num_marks} images, but {len(read)} images",
            "one mark for every image, in their order",
            "put None where a part isn't seen",
        )
    unread = tuple(index for index in range(num_marks) if index not in read)
    kept = {
        name: tuple(None if index in unread else box for index, box in enumerate(each))
        for name, each in boxes.items()
    }
    for name, each in kept.items():
        if sum(box is not None for box in each) < 2:
            raise ConvscopeError(
                f"part {name!r}, marked in fewer than two images",
                "at least two: pairs are compared",
                "mark it in more images",
            )
    return kept, unread

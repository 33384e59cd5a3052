"""``gallery``: the strongest images of every unit beside their projections, as files for a page."""

from pathlib import Path

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_folder
from convscope.sight.album import Gallery
from convscope.sight.below import Below
from convscope.sight.drawing import Drawing, findings_on
from convscope.sight.folder import INDEX, SCRIPT, check_folder, write_index
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projection import Rule
from convscope.sight.projector import check_model, for_model, projecting
from convscope.sight.rules import check_rule
from convscope.sight.scan import scan
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units import UnitMaps, chosen, units_of
from convscope.sight.winners import look
from convscope.tape import Tape, device_of, record
from convscope.tape.receptive_field import receptive_fields


def gallery(
    model: nn.Module,
    images: ImageSource | Source,
    layers: str | list[str] = "all",
    top: int = 9,
    out: str | Path = "gallery/",
    rule: Rule = "deconvnet",
) -> Gallery:
    """Return every unit's strongest images and their projections, and write the pictures to a folder.

    One pass over the images finds each unit's strongest ones and its statistics; a second look at the
    winners finds the positions and projects them. Memory doesn't grow with the number of images. The
    folder holds two sprites per layer (patches and projections; :class:`~convscope.sight.album.Sprite`
    says what lies where), ``index.json``, and ``gallery.js``, which sets ``window.convscopeGallery`` to
    the same, for pages opened from a file. It appears when it is whole, in the place of an older one.

    Args:
        model: any eager network for images; runs in evaluation mode and comes back as it was.
        images: normalised for the network; a :mod:`convscope.data` set, or an
            :class:`~convscope.sight.images.ImageSource`, which says how they are shown and called.
        layers: ``"all"`` convolutions, or names or addresses of some.
        top: strongest images to keep per unit.
        out: the folder.
        rule: of the projections; see :mod:`convscope.sight.rules`.

    Raises:
        ConvscopeError: no images, images that the network doesn't take or that change between the two
            looks, images with NaN or infinite values, no convolution, an unknown layer or rule, a layer after
            a normalisation by the batch's own statistics, a folder that can't be written or that holds
            anything but an older gallery (nothing is run then).

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), figure 2.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU())
        >>> found = gallery(net, torch.rand(20, 3, 12, 12), out=tempfile.mkdtemp() + "/gallery")
        >>> [(layer.name, len(layer.units), layer.sprite.side) for layer in found.layers]
        [('0', 4, 3), ('3', 6, 3)]
    """
    check_rule(rule)
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ConvscopeError(f"top={top!r}", "a whole number from 1", "9 is Zeiler and Fergus's number")
    check_folder(Path(out))
    with undisturbed():
        return _gallery(model, image_source(images), layers, top, Path(out), rule)


def _gallery(
    model: nn.Module, images: ImageSource, layers: str | list[str], top: int, out: Path, rule: Rule
) -> Gallery:
    check_model(model)
    first = for_model(model, images.sample())
    tape = record(model, first, device=device_of(model))
    units, left_out = units_of(tape)
    units = chosen(units, layers)
    fields, below = receptive_fields(tape), Below(tape)
    _check_batch_statistics(below, units)
    tallies = scan(model, images, units, top)
    size = (first.shape[2], first.shape[3])
    drawings = [
        Drawing(number, unit, fields.get(unit.value), tallies[unit.unit_address], size)
        for number, unit in enumerate(units)
    ]
    num_images = max(tally.num_images for tally in tallies.values())
    with whole_folder(out) as folder:
        _draw(model, tape, images, drawings, rule)
        drawn = tuple(
            drawing.layer(below.census(drawing.look.maps.value, rule), images.display) for drawing in drawings
        )
        result = Gallery(
            rule=rule,
            top=top,
            num_images=num_images,
            image_size=size,
            layers=drawn,
            left_out=left_out,
            folder=str(out),
            index=INDEX,
            script=SCRIPT,
            findings=tuple(finding for layer in drawn for finding in findings_on(layer, rule, num_images)),
        )
        for drawing in drawings:
            drawing.save(folder)
        write_index(result, folder)
    return result


def _check_batch_statistics(below: Below, units: tuple[UnitMaps, ...]) -> None:
    """Refuse units whose activations depend on the other images of a batch."""
    for unit in units:
        norm = below.batch_statistics(unit.value)
        if norm is not None:
            raise ConvscopeError(
                f"layer {unit.name}, which {norm.address} below normalises by the batch, in evaluation too",
                "activations that depend on one image alone",
                "use running statistics (track_running_stats=True), or choose layers before it",
            )


def _draw(model: nn.Module, tape: Tape, images: ImageSource, drawings: list[Drawing], rule: Rule) -> None:
    """The second look: every winning image is read once."""
    wanted = {image for drawing in drawings for image in drawing.look.places}
    if not wanted:
        return
    with projecting(model, tape, rule) as projector:
        for indices, batch in images.batches(wanted):
            pixels = for_model(model, batch)
            for drawing in drawings:
                for view in look(projector, drawing.look, indices, pixels):
                    drawing.put(view, images)

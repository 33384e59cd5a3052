"""``gallery``: the strongest images of every unit beside their projections, as files for a page."""

from pathlib import Path

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_folder
from convscope.sight.album import Gallery
from convscope.sight.below import Below
from convscope.sight.drawing import Drawing, findings_on
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projection import Rule
from convscope.sight.projector import for_model, projecting
from convscope.sight.rules import check_rule
from convscope.sight.scan import scan
from convscope.sight.units import chosen, units_of
from convscope.sight.winners import look
from convscope.tape import Tape, record
from convscope.tape.receptive_field import receptive_fields

INDEX, SCRIPT = "index.json", "gallery.js"


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
            looks, no convolution, an unknown layer or rule, a folder that can't be written.

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), figure 2.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU())
        >>> found = gallery(net, torch.rand(20, 3, 12, 12), out=tempfile.mkdtemp() + "/gallery")
        >>> [(layer.name, len(layer.units), layer.sprite.side) for layer in found.layers]
        [('0', 4, 3), ('3', 6, 3)]
    """
    check_rule(rule)
    if top < 1:
        raise ConvscopeError(f"top={top}", "at least 1", "9 is Zeiler and Fergus's number")
    images = image_source(images)
    first = for_model(model, images.sample())
    tape = record(model, first)
    units, left_out = units_of(tape)
    units = chosen(units, layers)
    tallies = scan(model, images, units, top)
    fields, below = receptive_fields(tape), Below(tape)
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
        _write(result, folder)
    return result


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


def _write(result: Gallery, folder: Path) -> None:
    text = result.to_json()
    (folder / INDEX).write_text(text, encoding="utf-8")
    # JSON is JavaScript except for two line separators; "</" would end a script that is pasted into a page.
    script = text.replace("</", "<\\/").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    (folder / SCRIPT).write_text(f"window.convscopeGallery = {script};\n", encoding="utf-8")

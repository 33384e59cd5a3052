"""``gallery``: the strongest images of every unit beside their projections, as files for a page."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.probe.kept_memory import memory_kept_for
from convscope.sight.collecting.identity import Identity, identity_of
from convscope.sight.collecting.processes import Processes
from convscope.sight.collecting.scan import Scan, ScanOptions, scan
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.picturing.album import Gallery
from convscope.sight.picturing.drawing import Drawing
from convscope.sight.picturing.findings import findings_on
from convscope.sight.picturing.folder import INDEX, SCRIPT, check_folder, write_index
from convscope.sight.picturing.kept import BlockFiles
from convscope.sight.picturing.numbers import NUMBERS, write_numbers
from convscope.sight.picturing.options import Course, GalleryOptions
from convscope.sight.picturing.origin import Origin
from convscope.sight.picturing.places import blocks_of
from convscope.sight.picturing.plan import Plan, plan
from convscope.sight.picturing.second_look import SecondLook
from convscope.sight.picturing.varying import varying_boxes
from convscope.sight.picturing.winners import ImagesChangedError
from convscope.sight.picturing.working import FORMAT, WorkingFolder
from convscope.sight.projecting.projection import Rule
from convscope.sight.projecting.projector import check_model, for_model
from convscope.sight.projecting.rules import check_rule
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units.choice import chosen
from convscope.sight.units.maps import units_of
from convscope.tape import device_of, record


# Seven parameters: six are what is asked, the last holds how it is done.
def gallery(
    model: nn.Module,
    images: ImageSource | Source,
    layers: str | list[str] = "all",
    top: int = 9,
    out: str | Path = "gallery/",
    rule: Rule | None = None,
    *,
    options: GalleryOptions | None = None,
) -> Gallery:
    """Return every unit's strongest images and their projections, and write the pictures to a folder.

    One pass over the images finds each unit's strongest ones and its statistics; a second look at the
    winners projects them. Memory doesn't grow with the number of images. The folder holds each layer's
    patches and projections as sprites (:class:`~convscope.sight.picturing.album.Sprite` says what lies
    where), ``units.safetensors`` with all units' numbers, ``index.json``, and ``gallery.js``, which sets
    ``window.convscopeGallery`` to the same, for pages opened from a file. It appears when it is whole, in
    the place of an older one.

    What is done is kept in ``NAME.partial`` beside the folder until then: the same call goes on there after
    it was killed, and after a disk was full. Where ``torch.distributed`` is initialised, every process of
    the default group makes the same call and takes its share; the first writes the folder, which is bit for
    bit what one process writes.

    Args:
        model: any eager network for images; runs in evaluation mode and comes back as it was.
        images: normalised for the network; a :mod:`convscope.data` set, or an
            :class:`~convscope.sight.images.ImageSource`, which says how they are shown and called.
        layers: ``"all"`` convolutions, or names or addresses of some; also of modules whose output is maps.
        top: strongest images to keep per unit.
        out: the folder.
        rule: of the projections, see :mod:`convscope.sight.projecting.rules`; None: one that suits the
            network, see :attr:`Gallery.rule_reason`.
        options: see :class:`~convscope.sight.picturing.options.GalleryOptions`.

    Raises:
        ConvscopeError: no images, images that the network doesn't take or that change between the two
            looks, no convolution, an unknown layer or rule, a layer after a normalisation by the batch's own
            statistics, a rule that suits none of the layers named, a folder that can't be written or that
            holds anything but an older gallery (nothing is run then).

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), figure 2.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU())
        >>> found = gallery(net, torch.rand(20, 3, 12, 12), out=tempfile.mkdtemp() + "/gallery")
        >>> [(layer.name, len(layer.units), layer.sprite.side) for layer in found.layers]
        [('0', 4, 3), ('3', 6, 3)]
    """
    if rule is not None:
        check_rule(rule)
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ConvscopeError(f"top={top!r}", "a whole number from 1", "9 is Zeiler and Fergus's number")
    working = WorkingFolder(Path(out))
    check_folder(Path(out))
    working.check()
    with undisturbed():
        asked = _Asked(model, image_source(images), layers, top, rule, options or GalleryOptions())
        return _gallery(asked, working)


@dataclass(frozen=True)
class _Asked:
    """What a gallery is made of."""

    model: nn.Module
    images: ImageSource
    layers: str | list[str]
    top: int
    rule: Rule | None
    options: GalleryOptions

    @property
    def processes(self) -> Processes:
        return Processes.of(self.model)

    def tell(self, stage: str, working: WorkingFolder, done: int, total: int | None) -> None:
        self.options.tell(Course(stage, done, total, str(working.path)))  # type: ignore[arg-type]


def _gallery(asked: _Asked, working: WorkingFolder) -> Gallery:
    check_model(asked.model)
    sample = for_model(asked.model, asked.images.sample())
    tape = record(asked.model, sample, device=device_of(asked.model))
    units, left_out = units_of(tape)
    planned = plan(asked.model, tape, chosen(units, asked.layers, tape), asked.rule, asked.images)
    planned.check_top(asked.top)
    settings = {"images kept per unit": asked.top, "statistics": asked.options.statistics}
    identity = identity_of(asked.model, asked.images, planned.units, settings)
    try:
        with memory_kept_for(tape, asked.images.batch_size / len(sample)):
            scanned = _scan(asked, planned, working.scan(identity), working)
            boxes = asked.processes.first(lambda: varying_boxes(asked.model, planned, scanned.tallies))
            drawings = planned.drawings(scanned.tallies, asked.options.num_judged, boxes)
            files = _second_look(asked, planned, drawings, identity, working)
        found = asked.processes.first(
            lambda: _written(asked, planned, scanned, drawings, files, working, left_out, identity)
        )
    except ImagesChangedError:
        working.remove()
        raise
    except ConvscopeError:
        working.remove_if_empty()
        raise
    asked.processes.each(working.remove)
    asked.processes.barrier()
    return found


def _scan(asked: _Asked, planned: Plan, folder: Path, working: WorkingFolder) -> Scan:
    options = ScanOptions(
        statistics=asked.options.statistics,
        folder=folder,
        progress=lambda done, total: asked.tell("scan", working, done, total),
    )
    return scan(asked.model, asked.images, planned.units, asked.top, options)


def _second_look(
    asked: _Asked, planned: Plan, drawings: list[Drawing], identity: Identity, working: WorkingFolder
) -> BlockFiles:
    looks = [drawing.look for drawing in drawings]
    blocks = blocks_of(looks)
    settings = {
        "rule": planned.rule,
        "judge": asked.options.judge,
        "display": asked.images.display,
        "version": FORMAT,
    }
    folder = working.blocks({**identity, **settings}, [drawing.tally for drawing in drawings])
    files = BlockFiles(folder, len(blocks))
    second = SecondLook(asked.model, planned.tape, planned.rule, asked.images, drawings, blocks)
    second.draw(
        files,
        asked.processes,
        lambda done, total: asked.tell("projections", working, done, total),
    )
    return files


# Eight parameters: all that has been found comes together here.
def _written(
    asked: _Asked,
    planned: Plan,
    scanned: Scan,
    drawings: list[Drawing],
    files: BlockFiles,
    working: WorkingFolder,
    left_out: tuple[str, ...],
    identity: Identity,
) -> Gallery:
    with working.whole() as folder:
        drawn = []
        for drawing in drawings:
            drawing.save(files, folder)
            drawn.append(drawing.layer(files, asked.images))
        write_numbers(drawn, [drawing.tally for drawing in drawings], folder)
        result = Gallery(
            rule=planned.rule,
            rule_reason=planned.rule_reason,
            top=asked.top,
            num_images=scanned.num_images,
            damaged=scanned.damaged,
            image_size=planned.image_size,
            layers=tuple(drawn),
            left_out=left_out,
            folder=str(working.out),
            images_fingerprint=identity["images"],
            digest=_digest(folder),
            index=INDEX,
            script=SCRIPT,
            numbers=NUMBERS,
            findings=tuple(
                f
                for layer in drawn
                for f in findings_on(layer, planned.rule, scanned.num_images, planned.template)
            ),
            origin=asked.options.origin or Origin.of_model(asked.model),
        )
        write_index(result, folder)
    return result


def _digest(folder: Path) -> str:
    """Return the hash of all files in a folder, with their names."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()

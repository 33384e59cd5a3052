"""``occlusion``: what the network's answer and its units depend on in one image, by hiding parts of it."""

from collections.abc import Sequence
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.probe.kept_memory import memory_kept_for
from convscope.sight.images import image_source
from convscope.sight.occluding.followed import Clean, class_maps, followed, unit_maps
from convscope.sight.occluding.plan import OcclusionPlan
from convscope.sight.occluding.prefix import Prefix, best_prefix
from convscope.sight.occluding.result import Occlusion
from convscope.sight.occluding.runs import Runs, Subject
from convscope.sight.occluding.sliding import Slide, slide
from convscope.sight.project import locate
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.projector import check_model, for_model
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units.classes import class_scores, no_classes
from convscope.sight.units.layout import channel_axes
from convscope.sight.units.own_images import require_own_images
from convscope.sight.units.reading import Place, place_of
from convscope.tape import Tape, device_of, record

Units = Sequence[tuple[str, int | None]]
_EXACT = (torch.float32, torch.float64)


def occlusion(
    model: nn.Module,
    image: Float[Tensor, "c h w"] | Float[Tensor, "1 c h w"],
    label: int | None = None,
    units: Units = (),
    plan: OcclusionPlan | None = None,
) -> Occlusion:
    """Return class probability, most probable label and units' activity while a window hides the image.

    At every place the window's pixels are replaced by one colour; probability, label and units are read in
    the same run, in evaluation mode. The model comes back as it was.

    What a window doesn't change is computed once (``plan.reuse``): the first operators run on the region that
    sees the window, with the clean image's values around it, as long as their receptive fields are known and
    that saves work. Four windows are run both ways first; where that differs by more than rounding, or the
    network doesn't run on parts, all runs are plain, and ``Occlusion.reuse`` says so. Reuse changes results
    by rounding only; other dtypes than float32 and float64 always run plainly.

    Args:
        model: any eager network for images.
        image: normalised for the network.
        label: the class whose probability is mapped; None: the clean image's most probable one.
        units: ``(layer, channel)`` each, layers as for :func:`~convscope.sight.project.project`; the channel
            None means the layer's with the largest total in the clean image, as Zeiler and Fergus choose it.
        plan: the window, its colour and its step; None: ``OcclusionPlan()``.

    Raises:
        ConvscopeError: the image isn't one image of finite numbers, or smaller than the window; a class,
            layer or unit that there isn't; neither class scores nor units to look at; a network whose results
            for one image depend on the others of a batch, or which gives NaN or infinite values; a model on
            the meta device.

    Not covered: networks whose answer isn't one score a class (only units can be followed there).

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks" (arXiv 1311.2901),
        section 4.2 and figure 7.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 10 * 8, 3))
        >>> found = occlusion(net, torch.rand(1, 12, 10), units=[("1", 0)], plan=OcclusionPlan(window=4))
        >>> found.rows, found.columns, tuple(found.units[0].total.shape)
        (6, 5, (6, 5))
    """
    with undisturbed(), torch.inference_mode(False), torch.no_grad():
        return _occlusion(model, _one(image), _whole(label), _checked(units), _planned(plan))


def _occlusion(
    model: nn.Module, image: Tensor, label: int | None, units: Units, plan: OcclusionPlan
) -> Occlusion:
    check_model(model, differentiated=False)
    image = for_model(model, image)
    size, batch_size = (image.shape[2], image.shape[3]), plan.checked_batch_size()
    window = plan.window_for(size)
    stride, fill = plan.stride_for(window), plan.fill(image)
    slid = slide(size, window, stride, plan.overhang)
    tape = record(model, image.repeat(2, 1, 1, 1), device=device_of(model))
    subject, asked = _subject(model, tape, label, units)
    prefix, reason = _prefix(tape, image, slid, subject, plan)
    with probing(model) as probe, memory_kept_for(tape, batch_size / 2):
        runs = Runs(probe, image, fill, slid.boxes, subject)
        runs.listen(prefix, reason)
        clean = Clean.of(subject, runs.clean(), asked, label)
        runs.judge()
        maps = followed(runs, subject, clean, batch_size, plan)
    return Occlusion(
        size,
        window,
        stride,
        tuple(float(channel) for channel in fill.flatten()),
        plan.colour if isinstance(plan.colour, str) else "given",
        plan.overhang,
        slid.rows,
        slid.columns,
        slid.boxes,
        None if clean.label is None else class_maps(clean, subject, maps, slid, label is not None),
        tuple(unit_maps(clean, subject, number, maps, slid, asked) for number in range(len(asked))),
        (),
        runs.reuse,
    )


def _whole(label: int | None) -> int | None:
    """NumPy's whole numbers are as good as Python's; whatever else there is, is told with the classes."""
    return int(label) if isinstance(label, Integral) and not isinstance(label, bool) else label


def _planned(plan: OcclusionPlan | None) -> OcclusionPlan:
    if plan is not None and not isinstance(plan, OcclusionPlan):
        raise ConvscopeError(
            f"plan of type {type(plan).__name__}",
            "an OcclusionPlan, or None",
            "OcclusionPlan(window=16), say",
        )
    return plan or OcclusionPlan()


def _checked(units: Units) -> Units:
    """Pairs of a layer and a channel."""
    pairs = units if isinstance(units, Sequence) and not isinstance(units, str) else [units]
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ConvscopeError(
                f"units={units!r}",
                "pairs of a layer and a channel, or None for its strongest",
                "units=[('features.conv5', 3)], say",
            )
    return tuple((layer, unit) for layer, unit in pairs)


def _subject(
    model: nn.Module, tape: Tape, label: int | None, units: Units
) -> tuple[Subject, tuple[int | None, ...]]:
    scores = class_scores(tape)
    if scores is None and (label is not None or not units):
        raise no_classes(tape)
    if scores is not None and label is not None:
        scores.checked(label)
    places = tuple(_place(model, tape, layer, unit) for layer, unit in units)
    read = [*([scores.value] if scores is not None else []), *(place.value for place in places)]
    require_own_images(Below(tape), read)
    subject = Subject(None if scores is None else (scores, place_of(tape, scores.value)), places)
    return subject, tuple(None if unit is None else int(unit) for _, unit in units)


def _place(model: nn.Module, tape: Tape, layer: str, unit: int | None) -> Place:
    address, value = locate(model, tape, layer)
    shape = tape.values[value].shape
    if len(shape) not in (2, 4) or shape[0] != 2 or channel_axes(tape).get(value, 1) != 1:
        raise ConvscopeError(
            f"layer {layer!r} with an output of shape {shape} for two images",
            "maps (images, channels, height, width) or vectors (images, channels)",
            "choose another layer; see `convscope cost`",
        )
    is_whole = isinstance(unit, Integral) and not isinstance(unit, bool)
    if unit is not None and not (is_whole and 0 <= unit < shape[1]):
        raise ConvscopeError(f"unit {unit!r} of {address}", f"0 to {shape[1] - 1}", "choose a channel it has")
    return Place(address, value)


def _prefix(
    tape: Tape, image: Tensor, slid: Slide, subject: Subject, plan: OcclusionPlan
) -> tuple[Prefix | None, str]:
    if not plan.reuse:
        return None, "not asked for"
    if image.dtype not in _EXACT:
        return None, f"{image.dtype} rounds too coarsely to tell a wrong region from rounding"
    if tape.questions:
        return None, "the network's code decides by what its tensors hold"
    if len(tape.inputs) != 1:
        return None, "the network has several inputs"
    found = best_prefix(tape, slid.boxes, frozenset(place.value for place in subject.places))
    return found, "" if found is not None else "it would save no work worth mentioning"


def _one(image: Tensor) -> Tensor:
    batch = image[None] if isinstance(image, Tensor) and image.dim() == 3 else image
    source = image_source(batch)
    if len(source.source) != 1:
        raise ConvscopeError(
            f"{len(source.source)} images", "one image (channels, height, width)", "pass images[0], say"
        )
    _, found = next(iter(source.batches()))
    return found

"""``invariance``: how far features and answer move when images are moved, scaled and turned."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, probing
from convscope.sight.images import ImageSource, Source, image_source
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.projector import check_model, for_model
from convscope.sight.transforming.answer import Answers, checked_labels
from convscope.sight.transforming.layers import layers_of
from convscope.sight.transforming.meter import Meter
from convscope.sight.transforming.plan import InvariancePlan
from convscope.sight.transforming.result import Invariance
from convscope.sight.transforming.transformation import Kind, Transformation
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units.classes import class_scores
from convscope.sight.units.own_images import require_own_images
from convscope.sight.units.reading import place_of
from convscope.tape import device_of, record

MOST_VALUES = 2**25
"""Features that are held at once, in elements; as many images go together as fit, up to 32."""
RESAMPLING = (
    "bilinear; smoothed by a triangle as wide as the reduction; whole-pixel shifts and quarter turns exact"
)


def invariance(
    model: nn.Module,
    images: ImageSource | Source,
    layers: str | Sequence[str] = "all",
    labels: Sequence[int] | None = None,
    plan: InvariancePlan | None = None,
) -> Invariance:
    """Return curves of feature distance and class probability over translation, scale and rotation.

    For each image x and transformation T, and each layer's features f: the distance ‖f(T x) − f(x)‖ (0:
    invariant), and, with maps taken back by T⁻¹ before they are compared, the residual ‖T⁻¹ f(T x) − f(x)‖
    (0: equivariant). Maps are taken back by bilinear interpolation, which smooths them where they come to lie
    between positions; distances are computed in float64. The model runs in evaluation mode and comes back as
    it was.

    Args:
        model: any eager network for images.
        images: see :func:`~convscope.sight.gallery.gallery`.
        layers: ``"all"`` for the units of all convolutions, after their normalisation and activation; or
            names, as for :func:`~convscope.sight.project.project`.
        labels: the class of every image, in order, whose probability is followed; None: the class that is
            most probable for the untransformed image.
        plan: the transformations, the border, the number of images; None: ``InvariancePlan()``.

    Raises:
        ConvscopeError: no images, of different sizes, or with NaN or infinite values; a layer or class that
            there isn't; a network whose results for one image depend on the others of a batch, or which gives
            NaN or infinite values; a model on the meta device.

    Not covered: layers whose channels aren't their second axis have distances only. Sub-pixel shifts and
    turns of images lose high frequencies by interpolation, which is part of the distance measured.

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks" (arXiv 1311.2901),
        section 4.1 and figure 5.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> plan = InvariancePlan(translation=(0, 2), scale=(), rotation=())
        >>> found = invariance(net, torch.rand(3, 1, 16, 16), plan=plan)
        >>> [round(point.residual.value, 6) for point in found.layers[0].curves[0].points]
        [0.0, 0.0]
    """
    with undisturbed(), torch.inference_mode(False), torch.no_grad():
        return _invariance(model, image_source(images), layers, checked_labels(labels), _planned(plan))


def _invariance(
    model: nn.Module,
    images: ImageSource,
    layers: str | Sequence[str],
    labels: Sequence[int] | None,
    plan: InvariancePlan,
) -> Invariance:
    check_model(model, differentiated=False)
    sample = for_model(model, images.sample())
    size = (sample.shape[2], sample.shape[3])
    steps = plan.steps(size)
    tape = record(model, sample, device=device_of(model))
    chosen, left_out = layers_of(model, tape, layers, size)
    scores = class_scores(tape)
    if labels is not None and scores is None:
        raise ConvscopeError(
            "labels for a network without class scores", "one of shape (images, classes)", "leave them out"
        )
    read = [layer.place.value for layer in chosen] + ([] if scores is None else [scores.value])
    require_own_images(Below(tape), read)
    answers = None if scores is None else Answers(scores, place_of(tape, scores.value), steps, labels)
    meters = [Meter(layer, steps) for layer in chosen]
    num_images = _gathered(model, images, meters, answers, (sample, steps, plan))
    return Invariance(
        num_images,
        size,
        plan.border,
        plan.direction,
        RESAMPLING,
        None if scores is None else scores.described,
        "predicted" if labels is None else "given",
        () if answers is None else answers.result(),
        tuple(meter.result() for meter in meters),
        left_out,
    )


def _planned(plan: InvariancePlan | None) -> InvariancePlan:
    if plan is not None and not isinstance(plan, InvariancePlan):
        raise ConvscopeError(
            f"plan of type {type(plan).__name__}", "an InvariancePlan, or None", "InvariancePlan(), say"
        )
    return plan or InvariancePlan()


def _gathered(
    model: nn.Module,
    images: ImageSource,
    meters: list[Meter],
    answers: Answers | None,
    course: tuple[Tensor, dict[Kind, tuple[Transformation, ...]], InvariancePlan],
) -> int:
    sample, steps, plan = course
    wanted = None if plan.num_images is None else images.spread(plan.num_images)
    count = _images_at_once(meters)
    done = 0
    with probing(model) as probe:
        heard = _Heard(probe, meters, answers)
        for indices, batch in images.batches(wanted):
            _check_size(batch, sample, indices)
            for start in range(0, len(batch), count):
                chunk = for_model(model, batch[start : start + count])
                own = indices[start : start + count]
                heard.clean(chunk, own)
                for step in (step for of_kind in steps.values() for step in of_kind):
                    heard.changed(step(chunk, plan.border), step, own)
                done += len(own)
                if plan.progress is not None:
                    plan.progress(done, None if wanted is None else len(wanted))
    return done


class _Heard:
    """Runs the model, and hands what is read to the meters."""

    def __init__(self, probe: Probe, meters: list[Meter], answers: Answers | None) -> None:
        self._probe, self._meters, self._answers = probe, meters, answers
        self._step: Transformation | None = None
        self._indices: list[int] = []
        for meter in meters:
            meter.layer.place.tell(probe, partial(self._at_layer, meter))
        if answers is not None:
            answers.place.tell(probe, self._at_scores)

    def clean(self, images: Tensor, indices: list[int]) -> None:
        """Run untransformed images."""
        self._step, self._indices = None, indices
        self._probe.model(images.clone())

    def changed(self, images: Tensor, step: Transformation, indices: list[int]) -> None:
        """Run the same images after a transformation."""
        self._step, self._indices = step, indices
        self._probe.model(images.clone())

    def _at_layer(self, meter: Meter, tensor: Tensor) -> None:
        self._check(tensor, meter.layer.place.address)
        with self._probe.paused():
            if self._step is None:
                meter.start(tensor)
            else:
                meter.add(self._step, tensor)

    def _at_scores(self, tensor: Tensor) -> None:
        assert self._answers is not None
        self._check(tensor, self._answers.place.address)
        with self._probe.paused():
            if self._step is None:
                self._answers.start(tensor, self._indices)
            else:
                self._answers.add(self._step, tensor)

    def _check(self, tensor: Tensor, address: str) -> None:
        if not bool(tensor.isfinite().all()):
            what = "" if self._step is None else f" under {self._step.kind} by {self._step.amount:g}"
            raise ConvscopeError(
                f"{address}, whose result for images {self._indices[0]} to {self._indices[-1]}{what} isn't "
                "finite",
                "finite numbers",
                "look for NaN or infinite weights, or run in a wider dtype",
            )


def _images_at_once(meters: list[Meter]) -> int:
    each = sum(torch.Size(meter.layer.shape).numel() for meter in meters)
    return max(1, min(32, MOST_VALUES // max(each, 1)))


def _check_size(batch: Tensor, sample: Tensor, indices: list[int]) -> None:
    if batch.shape[1:] != sample.shape[1:]:
        raise ConvscopeError(
            f"images {indices[0]} to {indices[-1]} of shape {tuple(batch.shape[1:])}, the first one of "
            f"{tuple(sample.shape[1:])}",
            "images of one size",
            "resize or crop them",
        )

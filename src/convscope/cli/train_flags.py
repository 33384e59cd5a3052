"""Flags of ``convscope train``: the settings of a run, in groups, and what a recipe fills in."""

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from convscope.cli.options import NetworkOptions
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.train import TrainConfig
    from convscope.train.recipes import Recipe

_LEARNING = Group("Learning", sort_key=10)
_IMAGES = Group("Images", sort_key=11)
_RUNNING = Group("Running", sort_key=12)


@Parameter(name="*")
@dataclass(frozen=True)
class FreshOptions(NetworkOptions):
    """How the network is built. --batch means what --batch-size does."""

    batch: Annotated[int | None, Parameter(show=False)] = None


@Parameter(name="*", group=_LEARNING)
@dataclass(frozen=True)
class LearningOptions:
    """What a step does to the weights.

    Attributes:
        epochs: Passes over the training images [default: 10].
        batch_size: Images in one optimizer step, over all processes together [default: 64].
        accumulation: Micro-batches that a step is made of [default: 1].
        learning_rate: Its highest value [default: 0.01].
        optimizer: sgd, sgd-momentum, adam, adamw or rmsprop [default: sgd-momentum].
        momentum: Of sgd-momentum [default: 0.9].
        nesterov: Nesterov's momentum.
        weight_decay: Of weights; never of biases and normalisation parameters [default: 0.0005].
        schedule: cosine, step, plateau or constant [default: cosine].
        warmup_epochs: Epochs, or parts of one, over which the rate climbs first [default: 0].
        step_epochs: Epochs between two steps of --schedule step [default: 30].
        step_factor: By which step and plateau multiply the rate [default: 0.1].
        patience_epochs: Epochs without a lower validation error after which plateau does [default: 5].
        label_smoothing: Weight of the uniform distribution in the training loss [default: 0].
        clip_grad_norm: Largest norm of all gradients together.
        renormalise_radius: Largest root mean square of a convolution's filter; ZFNet: 0.1.
        ema_decay: Of an average of the weights, measured and kept beside them, such as 0.999.
        sync_batch_norm: Batch norms normalise by the batch of all processes.
        precision: fp32, amp-bf16 or amp-fp16 [default: fp32].
        seed: Of initial weights, of the images' order and variations, of dropout [default: 0].
    """

    epochs: int | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    learning_rate: float | None = None
    optimizer: str | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    warmup_epochs: float | None = None
    step_epochs: int | None = None
    step_factor: float | None = None
    patience_epochs: int | None = None
    label_smoothing: float | None = None
    clip_grad_norm: float | None = None
    renormalise_radius: float | None = None
    ema_decay: float | None = None
    sync_batch_norm: bool | None = None
    precision: str | None = None
    seed: int | None = None


@Parameter(name="*", group=_IMAGES)
@dataclass(frozen=True)
class ImageOptions:
    """What the network sees of the images.

    Attributes:
        augment: What is random about training images: none, shift (by an eighth, mirrored), crop (a window,
            mirrored), crop-colour (with AlexNet's PCA noise) or ten-crops (one of the ten) [default: none].
        crop: Side of the windows that the network sees of larger pictures. Where windows are needed: that of
            the network's input.
        evaluation: centre (one window), or ten-crop (mean probabilities of ten) [default: centre].
        picture_size: Side of the pictures that windows are cut of. Without it: 256 for windows of 224, and
            so on; without windows, the network's input.
    """

    augment: str | None = None
    crop: int | None = None
    evaluation: str | None = None
    picture_size: int | None = None


@Parameter(name="*", group=_RUNNING)
@dataclass(frozen=True)
class RunningOptions:
    """How the run goes; results don't depend on these.

    Attributes:
        evaluate_every: Steps between measurements inside an epoch; 0: after each epoch only [default: 0].
        keep_epochs: Epochs after which the weights are kept, such as 1,2,5,10.
        checkpoint_every: Steps between checkpoints inside an epoch; 0: after each epoch only [default: 0].
        log_every: Steps between two looks at the losses [default: 10].
        num_workers: Processes that load images; 0: the training itself [default: 0].
        lean: Lean batch norm: activations that what batch norm saves gives again aren't saved.
        check_memory: --no-check-memory starts a run that the forecast of its memory refuses.
        device: auto, which takes the GPU if there is one, or cpu [default: auto].
    """

    evaluate_every: int | None = None
    keep_epochs: str | None = None
    checkpoint_every: int | None = None
    log_every: int | None = None
    num_workers: int | None = None
    lean: Annotated[bool | None, Parameter(negative="")] = None
    check_memory: bool | None = None
    device: str | None = None


def with_batch(learning: LearningOptions, batch: int | None) -> LearningOptions:
    """Return the flags with ``--batch``, which other commands have, as ``--batch-size``.

    Raises:
        ConvscopeError: both were given, and differ.
    """
    if batch is None:
        return learning
    if learning.batch_size not in (None, batch):
        raise ConvscopeError(
            f"--batch {batch} with --batch-size {learning.batch_size}",
            "one of them: they mean the same",
            "leave one out",
        )
    return replace(learning, batch_size=batch)


def config_of(
    chosen: "Recipe | None",
    learning: LearningOptions,
    images: ImageOptions,
    running: RunningOptions,
    input_side: int,
) -> "TrainConfig":
    """Return the settings that flags say, the recipe's where they are silent, and else the defaults.

    Args:
        chosen: the recipe, if there is one.
        learning: flags.
        images: flags.
        running: flags.
        input_side: shorter side of the network's input, in pixels: that of windows, where they are needed
            and no flag says it.

    Raises:
        ConvscopeError: a value isn't offered.
    """
    from convscope.train import TrainConfig
    from convscope.train.setting_rules import NEEDING_CROP

    given = {**_given(learning), **_given(images), **_given(running)}
    given.pop("picture_size", None)
    if "keep_epochs" in given:
        given["keep_epochs"] = _numbers(given["keep_epochs"])
    base = TrainConfig() if chosen is None else chosen.config
    needed = given.get("augment") in NEEDING_CROP or given.get("evaluation") == "ten-crop"
    if needed or base.crop is not None:
        given.setdefault("crop", input_side)
    return replace(base, **given)


def _given(options: LearningOptions | ImageOptions | RunningOptions) -> dict[str, Any]:
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConvscopeError(
            f"--keep-epochs {text!r}",
            "epochs from 1 with commas between them",
            "write it as --keep-epochs 1,2,5",
        )
    return tuple(int(number) for number in text.split(","))

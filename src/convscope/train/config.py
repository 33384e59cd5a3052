"""The settings of a training run, checked when they are made."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.train.setting_rules import (
    CHOICES,
    NEEDING_CROP,
    RULES,
    AugmentName,
    DeviceName,
    EvaluationName,
    OptimizerName,
    PrecisionName,
    ScheduleName,
)


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    The defaults of ``momentum``, ``weight_decay`` and ``learning_rate`` are AlexNet's. Weight decay is
    applied to the weight by AdamW and added to the gradient by the others, as PyTorch's optimizers do;
    biases and the parameters of normalisation layers have none.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in one optimizer step, over all processes and micro-batches together. A last batch
            that would leave a process fewer than two images (batch norm needs two) is left out of the epoch.
        learning_rate: its highest value.
        accumulation: micro-batches that an optimizer step is made of, each with its own forward and
            backward pass; the momentum of batch norms is corrected for it
            (:func:`convscope.norm.correct_momentum`). Without batch norm and dropout, results don't
            depend on it but by rounding. An epoch's smaller last batch is cut into as many as leave two
            images in each.
        optimizer: ``"sgd"``, ``"sgd-momentum"``, ``"adam"``, ``"adamw"`` or ``"rmsprop"``.
        momentum: of ``"sgd-momentum"``; the others keep PyTorch's own settings.
        nesterov: whether ``"sgd-momentum"`` looks ahead.
        weight_decay: of weights; never of biases and normalisation parameters.
        schedule: ``"cosine"`` falls to 0 at the end, ``"step"`` multiplies by ``step_factor`` after every
            ``step_epochs`` epochs, ``"plateau"`` after every ``patience_epochs`` epochs in a row whose
            validation top-1 error isn't the lowest so far (not counting the warm-up), ``"constant"`` stays.
        warmup_epochs: epochs (may be a fraction) over which the rate climbs linearly before the schedule.
        step_epochs: epochs between two steps of the ``"step"`` schedule.
        step_factor: factor of one step of the ``"step"`` and ``"plateau"`` schedules.
        patience_epochs: see ``"plateau"``.
        label_smoothing: weight of the uniform distribution in the training loss; validation has none.
        clip_grad_norm: largest L2 norm of all gradients together, or None.
        renormalise_radius: after every step, filters of convolutions whose root mean square exceeds it are
            scaled back to it (:class:`convscope.sight.Renormalisation`), or None.
        ema_decay: after the n-th step, ``average = d · average + (1 − d) · weights``, where d is the smaller
            of this and ``(1 + n) / (10 + n)``. The average, with batch norms' running statistics estimated
            for it on training images (other layers' are those of the weights), is measured after every
            epoch and kept in ``average.safetensors``. None: no average.
        sync_batch_norm: whether batch norms normalise by the whole micro-batch of all processes, instead of
            each process by its own share.
        precision: ``"fp32"`` (no autocast), ``"amp-bf16"`` or ``"amp-fp16"``: forward under autocast; with
            fp16 the loss is scaled, and steps whose gradients overflow are skipped.
        augment: what is random about training images. ``"none"``; ``"shift"``: shifted by up to an eighth
            of their sides, and mirrored (:func:`convscope.data.augmented`); ``"crop"``: a random window of
            ``crop`` pixels, mirrored; ``"crop-colour"``: also AlexNet's PCA colour noise; ``"ten-crops"``:
            one of the ten windows that ``"ten-crop"`` evaluation takes. Mirrored only where the data allows.
        crop: side in pixels of the windows that the network sees of larger images, in training and
            evaluation; None: whole images.
        evaluation: ``"centre"``: one window (or the whole image); ``"ten-crop"``: the mean of the class
            probabilities of ten windows: corners, centre, and these mirrored.
        seed: of the order of the images, of augmentation and of dropout, and of the initial weights of a
            network given by reference.
        evaluate_every: optimizer steps between two measurements on the validation images inside an epoch;
            0: only after each epoch.
        keep_epochs: after which epochs (from 1) the weights are kept in ``epoch-N.safetensors``; those behind
            the last epoch count if the run is made longer.
        checkpoint_every: optimizer steps between two checkpoints inside an epoch; 0: only after each epoch.
        log_every: optimizer steps between two looks at the losses. Every step is logged, this often.
        num_workers: processes that load images; 0: the training process itself. Results don't depend on it.
        lean: whether activations that can be made again from what batch norm saves aren't saved
            (:func:`convscope.norm.lean`). On CPU results don't depend on it.
        check_memory: whether a run whose forecast doesn't fit into memory is refused before its first step.
        device: ``"auto"`` takes the accelerator if there is one, ``"cpu"`` never does.

    Raises:
        ConvscopeError: a value is out of range.

    Source: defaults: Krizhevsky et al., ImageNet Classification with Deep CNNs (2012), section 5; cosine
    without restarts: Loshchilov & Hutter, SGDR (2017), equation 5.

    Example:
        >>> TrainConfig(epochs=0)
        Traceback (most recent call last):
        convscope.core.errors.ConvscopeError: epochs=0; expected a whole number from 1; change that setting
    """

    epochs: int = 10
    batch_size: int = 64
    accumulation: int = 1
    learning_rate: float = 0.01
    optimizer: OptimizerName = "sgd-momentum"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 30
    step_factor: float = 0.1
    patience_epochs: int = 5
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    renormalise_radius: float | None = None
    ema_decay: float | None = None
    sync_batch_norm: bool = False
    precision: PrecisionName = "fp32"
    augment: AugmentName = "none"
    crop: int | None = None
    evaluation: EvaluationName = "centre"
    seed: int = 0
    evaluate_every: int = 0
    keep_epochs: tuple[int, ...] = ()
    checkpoint_every: int = 0
    log_every: int = 10
    num_workers: int = 0
    lean: bool = False
    check_memory: bool = True
    device: DeviceName = "auto"

    @property
    def micro_batch_size(self) -> int:
        """Images in one pass of one process, at most: ``batch_size // accumulation``, at least 1."""
        return max(1, self.batch_size // self.accumulation)

    def __post_init__(self) -> None:
        if isinstance(self.keep_epochs, list):  # as JSON and TOML say it
            object.__setattr__(self, "keep_epochs", tuple(self.keep_epochs))
        for name, (expected, is_right) in RULES.items():
            value = getattr(self, name)
            if not is_right(value):
                action = nearest(value, CHOICES.get(name, ()), "change that setting")
                raise ConvscopeError(f"{name}={value!r}", expected, action)
        if self.nesterov and (self.optimizer != "sgd-momentum" or self.momentum == 0):
            raise ConvscopeError(
                f"nesterov=True with optimizer={self.optimizer!r}, momentum={self.momentum}",
                "'sgd-momentum' with a momentum above 0",
                "leave nesterov out, or take that optimizer",
            )
        if self.crop is None and (self.augment in NEEDING_CROP or self.evaluation == "ten-crop"):
            raise ConvscopeError(
                f"augment={self.augment!r}, evaluation={self.evaluation!r} without crop",
                "the side of the windows, in pixels",
                "set crop to the network's input size, and give larger images",
            )


RESUMABLE = frozenset(
    {
        "epochs",
        "evaluate_every",
        "keep_epochs",
        "checkpoint_every",
        "log_every",
        "num_workers",
        "lean",
        "check_memory",
        "device",
    }
)
"""The settings that may differ when a run is resumed; every other one would make it another run."""


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """Return ``config`` with some of its settings replaced.

    Raises:
        ConvscopeError: a name isn't a setting, or a value is out of range.

    Example:
        >>> with_settings(TrainConfig(), {"epochs": 3}).epochs
        3
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise ConvscopeError(
                f"unknown training setting {name!r}",
                f"one of {', '.join(known)}",
                f"try {near[0]}=" if near else "leave it out",
            )
    return dataclasses.replace(config, **settings)

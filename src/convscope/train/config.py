"""The settings of a training run, checked when they are made."""

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from convscope.core.errors import ConvscopeError

OptimizerName = Literal["sgd-momentum", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]
PrecisionName = Literal["fp32", "amp-bf16"]
DeviceName = Literal["auto", "cpu"]


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    The defaults of ``momentum``, ``weight_decay`` and ``learning_rate`` are AlexNet's. Weight decay is added
    to the gradient by SGD and applied to the weight by AdamW, as PyTorch's optimizers do; biases and the
    parameters of normalisation layers have none.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in one optimizer step, over all processes together. A last batch that would leave
            a process fewer than two images (batch norm needs two) is left out of the epoch.
        learning_rate: its highest value.
        optimizer: ``"sgd-momentum"`` or ``"adamw"``.
        momentum: of SGD; AdamW keeps its own 0.9 and 0.999.
        weight_decay: of weights; never of biases and normalisation parameters.
        schedule: ``"cosine"`` falls to 0 at the end, ``"step"`` multiplies by ``step_factor`` after every
            ``step_epochs`` epochs, ``"constant"`` stays.
        warmup_epochs: epochs (may be a fraction) over which the rate climbs linearly before the schedule.
        step_epochs: epochs between two steps of the ``"step"`` schedule.
        step_factor: factor of one step of the ``"step"`` schedule.
        label_smoothing: weight of the uniform distribution in the training loss; validation has none.
        clip_grad_norm: largest L2 norm of all gradients together, or None.
        precision: ``"fp32"`` (no autocast), or ``"amp-bf16"``: forward under bfloat16 autocast.
        augment: whether training images are shifted and mirrored at random (see
            :func:`convscope.data.augmented`); mirrored only where the data allows it.
        seed: of the order of the images, of augmentation and of dropout, and of the initial weights of a
            network given by reference.
        checkpoint_every: optimizer steps between two checkpoints inside an epoch; 0: only after each epoch.
        log_every: optimizer steps between two looks at the losses. Every step is logged, this often.
        num_workers: processes that load images; 0: the training process itself. Results don't depend on it.
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
    learning_rate: float = 0.01
    optimizer: OptimizerName = "sgd-momentum"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 30
    step_factor: float = 0.1
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    precision: PrecisionName = "fp32"
    augment: bool = False
    seed: int = 0
    checkpoint_every: int = 0
    log_every: int = 10
    num_workers: int = 0
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        for name, (expected, is_right) in _RULES.items():
            value = getattr(self, name)
            if not is_right(value):
                raise ConvscopeError(f"{name}={value!r}", expected, "change that setting")


RESUMABLE = frozenset({"epochs", "checkpoint_every", "log_every", "num_workers", "device"})
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


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number from {least}", lambda value: _is_int(value) and value >= least


def _number(expected: str, in_range: Callable[[float], bool]) -> tuple[str, Callable[[Any], bool]]:
    return expected, lambda value: _is_number(value) and in_range(value)


def _choice(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: value in names


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "learning_rate": _number("a finite number above 0", lambda x: x > 0),
    "optimizer": _choice("sgd-momentum", "adamw"),
    "momentum": _number("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "weight_decay": _number("a finite number from 0", lambda x: x >= 0),
    "schedule": _choice("cosine", "step", "constant"),
    "warmup_epochs": _number("a finite number of epochs from 0", lambda x: x >= 0),
    "step_epochs": _whole(1),
    "step_factor": _number("a number above 0, at most 1", lambda x: 0 < x <= 1),
    "label_smoothing": _number("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "clip_grad_norm": ("None or a finite number above 0", lambda x: x is None or (_is_number(x) and x > 0)),
    "precision": _choice("fp32", "amp-bf16"),
    "augment": ("True or False", lambda value: isinstance(value, bool)),
    "seed": _whole(0),
    "checkpoint_every": _whole(0),
    "log_every": _whole(1),
    "num_workers": _whole(0),
    "device": _choice("auto", "cpu"),
}

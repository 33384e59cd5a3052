"""The learning rate of every optimizer step, as a function of the step alone.

A function without state needs nothing in a checkpoint, and says the rate of any step beforehand.
"""

import math
from collections.abc import Callable

from convscope.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one optimizer step.

    With ``w`` warm-up steps, ``T`` steps in all and the peak rate ``r``:
    step ``s < w``: ``r (s + 1) / w``; then ``r`` times

    - cosine: ``(1 + cos(pi (s - w) / (T - w))) / 2``,
    - step: ``step_factor ** floor(s / (step_epochs * steps_per_epoch))``,
    - constant: 1.

    Args:
        config: the run's settings.
        step: optimizer steps done before this one, from 0.
        steps_per_epoch: optimizer steps in an epoch.

    Returns:
        The rate of that step.

    Example:
        >>> config = TrainConfig(epochs=2, learning_rate=1.0)
        >>> [round(learning_rate(config, step, 2), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * _SHAPES[config.schedule](config, step, warmup, steps_per_epoch)


def _cosine(config: TrainConfig, step: int, warmup: int, steps_per_epoch: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.epochs * steps_per_epoch - warmup)))


def _step(config: TrainConfig, step: int, warmup: int, steps_per_epoch: int) -> float:  # noqa: ARG001
    return config.step_factor ** (step // (config.step_epochs * steps_per_epoch))


def _constant(config: TrainConfig, step: int, warmup: int, steps_per_epoch: int) -> float:  # noqa: ARG001
    return 1.0


_SHAPES: dict[str, Callable[[TrainConfig, int, int, int], float]] = {
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
}

"""The learning rate of every optimizer step: a function of the step alone, but for plateaus.

A function without state needs nothing in a checkpoint, and says the rate of any step beforehand. What a
plateau depends on, how often the rate has fallen, is handed in.
"""

import math
from collections.abc import Callable

from convscope.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, falls: int = 0) -> float:
    """Return the learning rate of one optimizer step.

    With ``w`` warm-up steps, ``T`` steps in all and the peak rate ``r``:
    step ``s < w``: ``r (s + 1) / w``; then ``r`` times

    - cosine: ``(1 + cos(pi (s - w) / (T - w))) / 2``,
    - step: ``step_factor ** floor(s / (step_epochs * steps_per_epoch))``,
    - plateau: ``step_factor ** falls``,
    - constant: 1.

    Args:
        config: the run's settings.
        step: optimizer steps done before this one, from 0.
        steps_per_epoch: optimizer steps in an epoch.
        falls: how often the ``"plateau"`` schedule has lowered the rate (:func:`plateau`).

    Returns:
        The rate of that step.

    Example:
        >>> config = TrainConfig(epochs=2, learning_rate=1.0)
        >>> [round(learning_rate(config, step, 2), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    warmup = warmup_steps(config, steps_per_epoch)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "plateau":
        return config.learning_rate * config.step_factor**falls
    return config.learning_rate * _SHAPES[config.schedule](config, step, warmup, steps_per_epoch)


def warmup_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Return over how many optimizer steps the rate climbs."""
    return round(config.warmup_epochs * steps_per_epoch)


def plateau(patience: int, waited: int, falls: int, *, is_better: bool) -> tuple[int, int]:
    """Return what an epoch makes of the ``"plateau"`` schedule's state.

    Both papers divided the rate by ten when the validation error stopped improving, by hand. Here it has
    stopped after ``patience`` epochs in a row whose top-1 error wasn't below the lowest before them.

    Args:
        patience: epochs to wait.
        waited: epochs without a lower error since the last lower one, or the last fall.
        falls: how often the rate has been lowered.
        is_better: whether this epoch's validation top-1 error is the lowest so far.

    Returns:
        ``waited`` and ``falls`` after the epoch.

    Source: Krizhevsky et al. (2012), section 5; Zeiler & Fergus, arXiv 1311.2901, section 3.

    Example:
        >>> plateau(2, 0, 0, is_better=False), plateau(2, 1, 0, is_better=False)
        ((1, 0), (0, 1))
    """
    if is_better:
        return 0, falls
    return (0, falls + 1) if waited + 1 >= patience else (waited + 1, falls)


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

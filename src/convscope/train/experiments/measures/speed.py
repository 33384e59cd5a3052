"""How many steps training takes to a loss, measured on its own batches."""

from collections.abc import Sequence
from itertools import accumulate

from convscope.train.run import StepRecord


def steps_to_loss(steps: Sequence[StepRecord], target: float, window: int = 20) -> int | None:
    """Return the first step at which the mean training loss of the last ``window`` steps is at most a target.

    Args:
        steps: of a run, every one of them in order.
        target: loss, in nats.
        window: steps that are averaged; one batch alone says little.

    Returns:
        The step; None if there is none.

    Example:
        >>> records = [StepRecord(step, 1, 1 / step, 0.0, 0.1) for step in range(1, 9)]
        >>> steps_to_loss(records, 0.3, window=2)
        4
    """
    sums = [0.0, *accumulate(record.loss for record in steps)]
    means = ((sums[place] - sums[place - window]) / window for place in range(window, len(sums)))
    return next((steps[place].step for place, mean in enumerate(means, window - 1) if mean <= target), None)

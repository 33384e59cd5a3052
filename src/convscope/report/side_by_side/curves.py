"""How both networks of a pair learnt, epoch by epoch, where both were trained for their reports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convscope.report.side_by_side.differences import Plain

_MEASURED = ("train_loss", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        epoch: from 1.
        train_loss: mean cross-entropy of its images, nats; None where it isn't finite.
        validation_loss: after it, nats; likewise.
        validation_accuracy: share of validation images whose class has the highest score.
    """

    epoch: int
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Curve:
    """One network's training.

    Attributes:
        norm: the normalisation that it was trained with.
        epochs: in order.
    """

    norm: str
    epochs: tuple[Epoch, ...]


def curves(reports: Sequence[Plain]) -> tuple[Curve, ...]:
    """Return both networks' training with their normalisation; nothing if either wasn't trained.

    Raises:
        KeyError, TypeError, ValueError: a report that isn't one.
    """
    found = tuple(_curve(report["training"]) for report in reports if report.get("training"))
    return found if len(found) == len(reports) and all(curve.epochs for curve in found) else ()


def _curve(training: Mapping[str, Any]) -> Curve:
    epochs = (
        Epoch(int(each["epoch"]), *(_finite(each[name]) for name in _MEASURED))
        for each in training["run"]["epochs"]
    )
    return Curve(str(training["norm"]), tuple(epochs))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)

"""The parts of ``recalibrate``: data, layers, statistics, passes, processes, held-out loss, result."""

from convscope.norm.recalibration.plan import Progress, RecalibrationPlan
from convscope.norm.recalibration.result import (
    HeldOut,
    RecalibratedLayer,
    Recalibration,
    Residual,
)

__all__ = [
    "HeldOut",
    "Progress",
    "RecalibratedLayer",
    "Recalibration",
    "RecalibrationPlan",
    "Residual",
]

"""How results look in a terminal: importing this registers one rendering for every public result.

``print(result)`` and ``rich.print(result)`` use them, and so does a notebook. Every table states its units.
"""

from convscope.report.terminal import (
    checkup,
    compared,
    conversion,
    cost,
    fold,
    frozen,
    max_batch,
    mending,
    momentum,
    networks,
    recalibration,
    remedies,
    sight,
    timing,
    train,
    verification,
    whole,
)

__all__ = [
    "checkup",
    "compared",
    "conversion",
    "cost",
    "fold",
    "frozen",
    "max_batch",
    "mending",
    "momentum",
    "networks",
    "recalibration",
    "remedies",
    "sight",
    "timing",
    "train",
    "verification",
    "whole",
]

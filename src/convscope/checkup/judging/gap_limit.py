"""How large a gap may be without a word.

A tenth of the loss with batch statistics. But a small loss may vary by more than a tenth of itself, so that
there is a least as well: 0.05 where the loss is a classification's in nats. No number is small in every
unit; so for other losses it is a fiftieth of what the network has learnt, which is by how much the loss is
below that of samples that have each other's outputs (0.05 nats are that for ten classes).

Without that least a healthy regression would be reported, whose loss was 7e-5 with the running averages of a
training at a constant rate, and 3e-5 with batch statistics.
"""

from convscope.checkup.observed import Gap
from convscope.core.finding import Evidence

_SHARE = 0.1  # of the loss with batch statistics
_NATS = 0.05
_OF_LEARNT = 0.02
_LEAST = 1e-12
_SHOWN_SHARE, _ERRORS = 0.05, 2


def tolerated_gap(gap: Gap) -> float:
    """Return the largest gap that is no fault, in the loss's unit.

    Example:
        >>> tolerated_gap(Gap(0.3, 0.2, 0.01)), tolerated_gap(Gap(0.3, 0.25, 0.01, in_nats=False))
        (0.05, 0.025)
        >>> tolerated_gap(Gap(0.3, 0.25, 0.01, in_nats=False, by_chance=100.25))
        2.0
    """
    return max(_SHARE * abs(gap.batch_loss), _NATS if gap.in_nats else _OF_LEARNT * _learnt(gap), _LEAST)


def is_too_large(gap: Gap) -> bool:
    """Return whether a gap is beyond what is tolerated, and beyond doubt."""
    return gap.certain > tolerated_gap(gap)


def shows_in_loss(gap: Gap) -> bool | None:
    """Return whether wrong statistics show in the loss, so that it is no small matter; None if nobody knows.

    Of statistics that are known to be off a twentieth of the loss is enough, at two standard errors.
    """
    if gap.error is None:
        return None
    return gap.difference - _ERRORS * gap.error > _SHOWN_SHARE * abs(gap.batch_loss)


def tolerance_of(gap: Gap) -> Evidence:
    """Return what was tolerated, and by which rule."""
    if gap.in_nats:
        note = "the larger of a tenth of the loss and 0.05 nats, as of a classification"
        return Evidence("tolerated gap", tolerated_gap(gap), gap.unit, note)
    note = "a tenth of the loss, no classification's in nats" + (
        "" if gap.by_chance is None else ", or a fiftieth of what it is below chance"
    )
    return Evidence("tolerated gap", tolerated_gap(gap), gap.unit, note)


def _learnt(gap: Gap) -> float:
    return 0.0 if gap.by_chance is None else max(0.0, gap.by_chance - gap.batch_loss)

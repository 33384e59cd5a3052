"""Which running statistics are wrong, and how bad that is."""

import math

from convscope.checkup.judging.gap_limit import shows_in_loss
from convscope.checkup.judging.misled import stale_calls
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, Residuals
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Severity

# What images that a sample has missed explain: of 300 images fewer than 5 / 300 would be missed (e⁻⁵), and
# being 30 times as loud as the others they make the variance up to 1 + 5 / 300 · 30² = 16 times as large.
ENOUGH_IMAGES = 300
"""Images of which a sample can hardly have missed what counts."""
_MISSED, _LOUD = 5.0, 30.0
_CHANNELS_PER_RARE = 100  # of which one may be off by rare images


def stale_origins(observation: Observation) -> tuple[list[tuple[NormCall, Residuals]], int]:
    """Return the calls whose statistics are wrong themselves, and how many others are only misled.

    A call that is off at test time but right while the layers before it use batch statistics is misled. If
    all are, the first one is named.
    """
    off = [(norm, found, own) for norm, found, own in stale_calls(observation) if found]
    own = [(norm, own) for norm, _, own in off if own] or [(norm, found) for norm, found, _ in off[:1]]
    return own, len(off) - len(own)


def severity_of(observation: Observation, found: Residuals) -> Severity:
    """Return an error if it shows in the loss, or, without losses, if it is several times the tolerance.

    Advice if it doesn't, and rare images explain it, which one side has seen and the other hasn't: they do
    that to single channels, one in a hundred; and, if they are loud, to the variances of all of them.
    """
    shows = None if observation.gap is None else shows_in_loss(observation.gap)
    single = int(found.stale.sum()) * _CHANNELS_PER_RARE <= len(found.stale)
    rare = single or _is_louder_before(found)
    if shows is None:
        return "advice" if rare else "error" if found.size > 4 else "warning"
    return "error" if shows else "advice" if rare else "warning"


def _is_louder_before(found: Residuals) -> bool:
    """Whether means agree, running variances are larger, and rare images that aren't here may be why."""
    most = math.log(1 + _MISSED / found.num_images * _LOUD**2)
    smaller_C = (found.variance < 0) & (found.variance >= -most)
    agree = found.mean.abs() <= MEAN_TOLERANCE
    return found.num_images < ENOUGH_IMAGES and bool((agree & smaller_C)[found.stale].all())

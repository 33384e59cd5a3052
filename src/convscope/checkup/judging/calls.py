"""The calls of batch norms: each module once, and how much its calls in one training step differ."""

from collections.abc import Iterator

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, SIGMAS, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Observation
from convscope.checkup.observed.run import CallShift


def modules(observation: Observation) -> Iterator[NormCall]:
    """Yield the first call of each batch norm module."""
    return (norm for norm in once(observation) if norm.training is not None)


def once(observation: Observation) -> Iterator[NormCall]:
    """Yield the first call of each batch norm module, and every functional call."""
    seen: set[str] = set()
    for norm in observation.norms:
        if norm.training is None or norm.path not in seen:
            seen.add(norm.path)
            yield norm


def shift_beyond_doubt(shift: CallShift) -> float:
    """Return what a difference is after five of its standard errors, as a multiple of what is tolerated.

    Example:
        >>> shift_beyond_doubt(CallShift("bn", shift=1.5, error=0.1, log_variance=0.0, calls=2))
        2.0
    """
    mean = (shift.shift - SIGMAS * shift.error) / MEAN_TOLERANCE
    variance = (shift.log_variance - SIGMAS * shift.log_variance_error) / VARIANCE_TOLERANCE
    return max(mean, variance, 0.0)

"""How much the calls of a batch norm in one training step differ, beyond doubt."""

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, SIGMAS, VARIANCE_TOLERANCE
from convscope.checkup.observed.run import CallShift


def shift_beyond_doubt(shift: CallShift) -> float:
    """Return what a difference is after five of its standard errors, as a multiple of what is tolerated.

    Example:
        >>> shift_beyond_doubt(CallShift("bn", shift=1.5, error=0.1, log_variance=0.0, calls=2))
        2.0
    """
    mean = (shift.shift - SIGMAS * shift.error) / MEAN_TOLERANCE
    variance = (shift.log_variance - SIGMAS * shift.log_variance_error) / VARIANCE_TOLERANCE
    return max(mean, variance, 0.0)

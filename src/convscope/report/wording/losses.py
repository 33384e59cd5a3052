"""Losses and their unit, which is the loss's own where it isn't a classification's."""

from convscope.report.wording.formats import with_error


def loss_in(unit: str) -> str:
    """Return what stands behind a quantity's name.

    Example:
        >>> loss_in("nats"), loss_in("loss")
        ('nats', 'in the loss’s unit')
    """
    return unit if unit not in ("", "loss") else "in the loss’s unit"


def loss(value: float | None, unit: str, error: float | None = None) -> str:
    """Return a loss with its standard error, and with its unit where it is known; a dash for None.

    Example:
        >>> loss(0.9543, "nats", 0.06682), loss(0.5, "loss"), loss(None, "nats")
        ('0.954 ± 0.067 nats', '0.5', '–')
    """
    written = with_error(value, error)
    return f"{written} {unit}" if value is not None and unit not in ("", "loss") else written

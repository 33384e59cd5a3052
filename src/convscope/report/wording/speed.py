"""Whether a ratio of times says that anything is faster."""


def about_one(low: float, high: float) -> bool:
    """Return whether a ratio may be noise: its quartiles have 1 between them.

    Example:
        >>> about_one(0.99, 1.05), about_one(1.21, 1.31)
        (True, False)
    """
    return low <= 1 <= high

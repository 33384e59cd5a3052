"""Which of a network's outputs may be the scores of classes: one rule for all readings.

At least two classes, as many as the data has where that is known, and enough for its labels.
"""

from collections.abc import Iterable


def is_number_of_classes(width: int, num_classes: int | None = None, largest_label: int = 0) -> bool:
    """Return whether an output of this width may be the scores of classes.

    Args:
        width: the output's second axis.
        num_classes: of the data; None where it isn't known.
        largest_label: that there is, from 0.

    Example:
        >>> [is_number_of_classes(width) for width in (1, 3)], is_number_of_classes(3, largest_label=3)
        ([False, True], False)
    """
    return width >= 2 and width > largest_label and num_classes in (None, width)


def other_widths(widths: Iterable[int], num_classes: int) -> str:
    """Return how many scores outputs of these widths give, in words; empty if one gives so many.

    Widths that can't be those of class scores are told only where there are no others; of no outputs nothing
    is known.

    Example:
        >>> other_widths([10, 1, 1000], 3), other_widths([1], 3), other_widths([10, 3], 3)
        ('10 or 1,000', '1', '')
    """
    known = list(dict.fromkeys(widths))
    if num_classes in known:
        return ""
    likely = [width for width in known if is_number_of_classes(width)] or known
    return " or ".join(f"{width:,}" for width in likely)


def described_output(place: int, total: int, num_classes: int) -> str:
    """Return which output it is that holds scores, in words.

    Example:
        >>> described_output(0, 2, 3)
        'output 1 of 2, of shape (images, 3)'
    """
    return f"output {place + 1} of {total}, of shape (images, {num_classes})"

"""Which of a network's outputs may be the scores of classes: one rule for all readings.

At least two classes, as many as the data has where that is known, and enough for its labels.
"""


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


def described_output(place: int, total: int, num_classes: int) -> str:
    """Return which output it is that holds scores, in words.

    Example:
        >>> described_output(0, 2, 3)
        'output 1 of 2, of shape (images, 3)'
    """
    return f"output {place + 1} of {total}, of shape (images, {num_classes})"

"""What a check-up could not check."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unchecked:
    """Something that could not be checked.

    Attributes:
        what: a fault's id, a layer's address or a parameter's name.
        reason: why not, in a sentence.
    """

    what: str
    reason: str

"""What a user may choose about a fold."""

from dataclasses import dataclass
from typing import Literal

Border = Literal["keep", "map", "pad"]
"""What to do about a batch norm before a layer that pads with zeros, whose border would show the shift.
``keep``: keep the shift in its place; ``map``: a bias for each position of the output, which fixes the size
of the inputs; ``pad``: pad with the shift instead of zeros, an operator more."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about a fold.

    Attributes:
        materialise: whether weights that are computed in every run (weight norm, standardised weights) become
            plain ones.
        border: see :data:`Border`.
        merge: whether parallel linear branches become one convolution.
        partial: whether scales may go where shifts have to stay.
    """

    materialise: bool = False
    border: Border = "keep"
    merge: bool = True
    partial: bool = True


DEFAULT = Options()
"""What a user who chooses nothing gets."""

"""How a check-up is to be made, beyond what everybody has to say."""

from collections.abc import Callable
from dataclasses import dataclass

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class Progress:
    """Where a check-up is.

    Attributes:
        purpose: what is being measured, in a few words.
        done: batches, or layers, that are measured.
        total: how many there are, where that is known.
    """

    purpose: str
    done: int
    total: int | None


@dataclass(frozen=True)
class CheckupPlan:
    """The settings of :func:`convscope.checkup.checkup` that seldom change.

    Attributes:
        max_batches: batches to read of the data; None for all.
        attribute: whether a significant gap is attributed layer by layer, at a pass a layer over the batches
            that are kept for it.
        kept_bytes: of inputs that are kept in memory for that; batches beyond it have no part in it.
        progress: is told the course of the check-up.
    """

    max_batches: int | None = None
    attribute: bool = True
    kept_bytes: int = 2**28
    progress: Callable[[Progress], object] | None = None

    def __post_init__(self) -> None:
        value = self.max_batches
        if value is not None and (type(value) is not int or value < 1):
            raise ConvscopeError(
                f"max_batches={value!r}", "a whole number from 1", "leave it out for all batches"
            )

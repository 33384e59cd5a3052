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
        if type(self.kept_bytes) is not int or self.kept_bytes < 0:
            raise ConvscopeError(
                f"kept_bytes={self.kept_bytes!r}",
                "a whole number of bytes from 0",
                "leave it out for 256 MiB",
            )
        value = self.max_batches
        if value is not None and (type(value) is not int or value < 1):
            raise ConvscopeError(
                f"max_batches={value!r}", "a whole number from 1", "leave it out for all batches"
            )


def checked(plan: CheckupPlan | None) -> CheckupPlan:
    """Return the plan, or the usual one.

    Raises:
        ConvscopeError: it isn't a plan.
    """
    if plan is not None and not isinstance(plan, CheckupPlan):
        raise ConvscopeError(
            f"plan={plan!r}"[:80], "a CheckupPlan", "pass plan=CheckupPlan(max_batches=...), or none"
        )
    return plan or CheckupPlan()

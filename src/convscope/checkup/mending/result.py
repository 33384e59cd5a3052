"""What mending returns: the repaired copy, the check-up before and after, and what was left to the user."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from convscope.checkup.result import Checkup, StateProof
from convscope.core.result import Result


@dataclass(frozen=True)
class Mended:
    """One repair that was made.

    Attributes:
        faults: ids of the faults that it is for.
        addresses: of their findings.
        done: what was done, in a sentence.
        largest_change: largest |change| of an output in evaluation mode on the first batch, over the largest
            |output|, where the repair promises to change nothing but rounding; None for others, and without
            data.
    """

    faults: tuple[str, ...]
    addresses: tuple[str, ...]
    done: str
    largest_change: float | None = None


@dataclass(frozen=True)
class Left:
    """A finding that was left.

    Attributes:
        fault: its id.
        address: where it is.
        reason: why it was left, in a sentence.
    """

    fault: str
    address: str
    reason: str


@dataclass(frozen=True)
class Mending(Result):
    """What :func:`convscope.checkup.mend` did; the model that it was given is as it was.

    Attributes:
        model: the repaired copy, in the modes of the given one, but for layers that were frozen.
        before: the check-up of the given model.
        after: the check-up of the copy, on the same data.
        mended: the repairs, in order.
        left: every finding of ``after``, and why it is still there; what is hidden; and where a finding is
            gone, but a part of its repair wasn't made, why.
        state: hashes of the given model before everything and after everything.
        hidden: faults and addresses that were found before layers were frozen, and aren't judged since; they
            aren't gone.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"model", "hidden"})

    before: Checkup
    after: Checkup
    mended: tuple[Mended, ...]
    left: tuple[Left, ...]
    model: nn.Module = field(repr=False, compare=False)
    state: StateProof | None = None
    hidden: tuple[tuple[str, str], ...] = ()

    @property
    def gone(self) -> tuple[tuple[str, str], ...]:
        """The faults and addresses of the findings that are gone."""
        still = {(finding.fault, finding.address) for finding in self.after.findings} | set(self.hidden)
        found = ((finding.fault, finding.address) for finding in self.before.findings)
        return tuple(each for each in found if each not in still)

"""What a gate has found: one check for each limit."""

from collections.abc import Sequence
from dataclasses import dataclass

from convscope.checkup import Unchecked
from convscope.core.result import Result
from convscope.gate.junit import Case, junit
from convscope.networks import WeightsReport
from convscope.networks.weights import some


@dataclass(frozen=True)
class Check:
    """One limit, and what the network has.

    Attributes:
        name: ``"memory"``, ``"params"``, ``"macs"``, ``"flops"``, ``"faults"`` or ``"unfolded"``.
        limit: the most that may be.
        found: what there is.
        unit: of both: ``"B"``, ``"elements"``, ``"MACs"``, ``"FLOPs"``, ``"findings"``, ``"batch norms"``.
        passed: whether ``found`` is at most ``limit``.
        method: what was measured, in a sentence.
        details: what it consists of, largest or worst first, one line each.
        seconds: that the reading took.
        unchecked: what the check-up could not check, and why.
        assumptions: what the recording had to assume, such as the way that was taken at an ``if``.
    """

    name: str
    limit: int
    found: int
    unit: str
    passed: bool
    method: str
    details: tuple[str, ...]
    seconds: float
    unchecked: tuple[Unchecked, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the verdict doesn't rest on, one line each."""
        places: dict[str, list[str]] = {}
        for each in self.unchecked:
            places.setdefault(each.reason, []).append(each.what)
        notes = [f"not checked: {some(names)}: {reason}" for reason, names in places.items()]
        return (*notes, *(f"assumed: {text}" for text in self.assumptions))


@dataclass(frozen=True)
class Gate(Result):
    """Whether a network keeps to its limits.

    Attributes:
        network: its name.
        input_shapes: shapes of its inputs, the batch first.
        checks: one for each limit, in the order of :class:`~convscope.gate.limits.Limits`.
        passed: whether all are kept.
        weights: what became of a file of weights; None where none was loaded by a reference.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    checks: tuple[Check, ...]
    passed: bool
    weights: WeightsReport | None = None

    @property
    def failed(self) -> Sequence[Check]:
        """The checks that aren't kept."""
        return [check for check in self.checks if not check.passed]

    def to_junit(self) -> str:
        """Return the checks as JUnit's XML, which CI services show: a test case for each limit."""
        cases = [
            Case(
                name=f"{check.name} at most {check.limit:,} {check.unit}",
                seconds=check.seconds,
                said="\n".join(
                    (f"{check.found:,} {check.unit}: {check.method}", *check.details, *check.caveats)
                ),
                failure=""
                if check.passed
                else f"{check.name}: {check.found:,} {check.unit}, at most {check.limit:,} allowed",
            )
            for check in self.checks
        ]
        differences = self.weights.differences if self.weights is not None else ()
        return junit("convscope gate", self.network, cases, "\n".join(differences))

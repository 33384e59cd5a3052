"""What a gate has found: one check for each limit."""

from collections.abc import Sequence
from dataclasses import dataclass

from convscope.core.result import Result
from convscope.gate.junit import Case, junit


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
    """

    name: str
    limit: int
    found: int
    unit: str
    passed: bool
    method: str
    details: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Gate(Result):
    """Whether a network keeps to its limits.

    Attributes:
        network: its name.
        input_shapes: shapes of its inputs, the batch first.
        checks: one for each limit, in the order of :class:`~convscope.gate.limits.Limits`.
        passed: whether all are kept.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    checks: tuple[Check, ...]
    passed: bool

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
                said="\n".join((f"{check.found:,} {check.unit}: {check.method}", *check.details)),
                failure=""
                if check.passed
                else f"{check.name}: {check.found:,} {check.unit}, at most {check.limit:,} allowed",
            )
            for check in self.checks
        ]
        return junit("convscope gate", self.network, cases)

"""The repair of layers that were meant to be frozen: at last, when their running statistics are right.

Freezing keeps what is there. A frozen layer isn't judged any more, and ``recalibrate`` leaves it alone, so
that wrong statistics would stay for good without a word. So this repair goes by a check-up of what the
others have made, and leaves each layer whose running statistics that finds wrong.
"""

from collections.abc import Iterator

from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import (
    Workshop,
    addresses_of,
    counted_layers,
    fault_ids,
    largest_change,
    path_of,
)
from convscope.checkup.observed import LayerGap
from convscope.checkup.result import Checkup
from convscope.core.finding import Finding
from convscope.norm import freeze

# What says that a layer's running statistics, or the variance that they divide by, aren't right.
_WRONG = (
    "stale-statistics",
    "young-statistics",
    "non-finite-statistics",
    "missing-statistics",
    "teacher-statistics",
    "averaged-weights",
    "momentum-convention",
    "half-statistics",
)


@repairs("frozen-but-tracking", last=True)
def frozen(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Freeze layers whose gamma and beta are frozen, so that they use and keep their running statistics."""
    wrong = {finding: _what_is_wrong(workshop.found, path_of(finding.address)) for finding in findings}
    for finding, fault in wrong.items():
        if fault:
            reason = f"frozen, it would keep wrong running statistics ({fault}): they must be right first"
            yield Left(finding.fault, finding.address, reason)
    right = tuple(finding for finding, fault in wrong.items() if not fault)
    if not right:
        return
    before = workshop.outputs()
    freeze(workshop.model, only=[path_of(finding.address) for finding in right], affine=False)
    yield Mended(
        fault_ids(right),
        addresses_of(right),
        f"cs.norm.freeze of {counted_layers(right)}",
        largest_change=largest_change(before, workshop.outputs()),
    )


def _what_is_wrong(found: Checkup, path: str) -> str:
    """The fault that a layer's running statistics have; empty if none is known."""
    serious = [each for each in found.findings if each.severity in ("error", "warning")]
    own = (each.fault for each in serious if each.fault in _WRONG and path_of(each.address) == path)
    named = next(own, "")
    if named or all(each.fault != "train-eval-gap" for each in serious):
        return named
    shares = {share.path: share for share in found.attribution}
    return "train-eval-gap" if not shares or _is_to_blame(shares.get(path)) else ""


def _is_to_blame(share: LayerGap | None) -> bool:
    return share is not None and share.is_significant and not share.misled

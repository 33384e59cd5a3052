"""Which five findings matter most?

The order is deterministic and can be said in a sentence: first by severity; among equals, the readings take
turns (check-up, training, fold, stem, gallery, cost), each with its own first finding, so that one
reading can't fill the list; findings with the same fault are one entry, which says how many more there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from convscope.core.finding import Finding, Severity
from convscope.core.result import Result

READINGS = ("checkup", "training", "fold", "stem", "gallery", "cost")
"""The readings in the order in which they take turns."""

NAMES: Mapping[str, str] = {
    "checkup": "check-up",
    "training": "training",
    "fold": "fold",
    "stem": "first layer",
    "gallery": "gallery",
    "cost": "cost",
}
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "advice", "info")
_MEANING = {
    "error": "an error: results are wrong until it is fixed",
    "warning": "a warning: harm, or a wrong conclusion, is likely",
    "advice": "advice: it could be better",
    "info": "",
}


@dataclass(frozen=True)
class RankedFinding(Result):
    """A finding and its place.

    Attributes:
        rank: from 1, the most important.
        reading: which reading it comes from: a name in :data:`READINGS`.
        finding: the finding.
        alike: how many more findings of that reading have the same fault.
        reason: why it stands here.
    """

    rank: int
    reading: str
    finding: Finding
    alike: int
    reason: str


def rank(findings: Mapping[str, Sequence[Finding]], most: int = 5) -> tuple[RankedFinding, ...]:
    """Return the ``most`` most important findings, in order.

    Args:
        findings: of each reading (names in :data:`READINGS`), in the reading's own order of importance.
        most: how many to return at most.

    Example:
        >>> fact = Finding("stem-share", "info", "conv1", (), "…")
        >>> fault = Finding("dead", "warning", "bn1", (), "…")
        >>> [ranked.finding.fault for ranked in rank({"cost": [fact], "checkup": [fault, fault]})]
        ['dead', 'stem-share']
    """
    entries = [entry for reading in READINGS for entry in _entries(reading, findings.get(reading, ()))]
    entries.sort(key=lambda entry: (_SEVERITIES.index(entry[1].severity), entry[3]))
    return tuple(
        RankedFinding(place, reading, finding, alike, _reason(finding, reading, alike))
        for place, (reading, finding, alike, _) in enumerate(entries[:most], 1)
    )


def _entries(reading: str, findings: Iterable[Finding]) -> list[tuple[str, Finding, int, int]]:
    """Reading, first finding, number of others, and turn within its severity, for each fault."""
    by_fault: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_fault.setdefault((finding.severity, finding.fault), []).append(finding)
    turns = dict.fromkeys(_SEVERITIES, 0)
    entries = []
    for (severity, _), alike in by_fault.items():
        entries.append((reading, alike[0], len(alike) - 1, turns[alike[0].severity]))
        turns[alike[0].severity] += 1
        assert severity == alike[0].severity
    return entries


def _reason(finding: Finding, reading: str, alike: int) -> str:
    more = f", and {alike} more like it" if alike else ""
    meaning = _MEANING[finding.severity]
    return f"From the {NAMES[reading]}{meaning and f'; {meaning}'}{more}."

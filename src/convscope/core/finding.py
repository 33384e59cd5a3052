"""A finding: one statement about a network, with its evidence and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "advice", "info"]
"""``error``: results are wrong; ``warning``: likely harm; ``advice``: could be better; ``info``: a fact."""


@dataclass(frozen=True)
class Evidence:
    """One measured number behind a finding.

    Attributes:
        name: what was measured.
        value: the number, in ``unit``.
        unit: ``"MACs"``, ``"B"``, ``"1"`` for a ratio, …
        method: how it was measured, in a few words.
    """

    name: str
    value: float
    unit: str
    method: str = ""


@dataclass(frozen=True)
class Finding:
    """One statement about a network.

    Attributes:
        fault: stable identifier, such as ``"stale-statistics"``; scripts match on it.
        severity: see :data:`Severity`.
        address: the value, module call or network that it speaks about.
        evidence: the numbers that it rests on.
        why: why it matters, in a sentence that contains the decisive number.
        remedy: what to do; empty for a fact that needs no remedy.
        source: paper, documentation or measurement that the judgement follows.
        effect: the measured effect, as a multiple of what is still tolerated; findings of one severity are
            ordered by it. 1 where nothing was measured.
        page: the command that prints the page about the fault; empty if there is none.
    """

    fault: str
    severity: Severity
    address: str
    evidence: tuple[Evidence, ...]
    why: str
    remedy: str = ""
    source: str = ""
    effect: float = 1.0
    page: str = ""

"""Every finding of a report, by reading; those of the fold are made here from its ledger."""

from collections.abc import Mapping, Sequence

from convscope.core.finding import Evidence, Finding
from convscope.fold.ledger import Folded, Speed
from convscope.report.whole.result import Report

_SOURCE = "at test time batch norm is an affine map with constants (Ioffe & Szegedy 2015, section 3.1)"


def findings_of(report: Report) -> Mapping[str, Sequence[Finding]]:
    """Return the findings of each reading of the network itself; readings that are missing are left out."""
    readings = {
        "checkup": report.checkup,
        "training": report.training,
        "stem": report.stem,
        "gallery": report.gallery,
        "cost": report.cost,
    }
    found = {name: reading.findings for name, reading in readings.items() if reading is not None}
    return {**found, "fold": fold_findings(report.folded) if report.folded else ()}


def fold_findings(folded: Folded) -> tuple[Finding, ...]:
    """Return what a fold says about a network: where its batch norms went, and what that gained."""
    ledger, total = folded.ledger, len(folded.ledger)
    if not total:
        return ()
    gone = ledger.folded + ledger.merged
    kept = [entry for entry in ledger.entries if entry.verdict in ("kept", "partial")]
    norms = "batch norm" if total == 1 else "batch norms"
    verbs = ("is" if gone == 1 else "are", "runs" if len(kept) == 1 else "run")
    why = f"{gone} of {total} {norms} {verbs[0]} folded into neighbouring layers at test time"
    evidence = [
        Evidence("batch norms folded away", gone, "batch norms", "verdicts of the ledger"),
        Evidence("largest relative difference of the outputs", folded.max_error, "1", folded.proof.method),
    ]
    if folded.speed:
        why += _faster(folded.speed)
        evidence += [
            Evidence(
                "speed after ÷ before, median of paired passes",
                folded.speed.speedup,
                "×",
                folded.speed.method,
            ),
            Evidence("first quartile", folded.speed.speedup_low, "×", "over the repeats"),
            Evidence("third quartile", folded.speed.speedup_high, "×", "over the repeats"),
        ]
        if folded.speed.ratio_to_twin is not None:
            name = "time after ÷ time of a twin without batch norm, median of paired passes"
            evidence.append(Evidence(name, folded.speed.ratio_to_twin, "×", folded.speed.method))
    why += f"; its outputs differ by at most {folded.max_error:.1e}, relative to the largest, in float64."
    found = [Finding("fold", "info", "self", tuple(evidence), why, "", _SOURCE)]
    if kept:
        found.append(
            Finding(
                fault="not-folded",
                severity="advice",
                address=kept[0].address,
                evidence=(Evidence("batch norms left", len(kept), "batch norms", "verdicts of the ledger"),),
                why=f"{len(kept)} of {total} {norms} still {verbs[1]} at test time: {kept[0].reason}",
                remedy=kept[0].remedy or "The ledger says for each why it stayed.",
                source="the ledger",
            )
        )
    return tuple(found)


def _faster(speed: Speed) -> str:
    """What the measured speed allows to say: nothing, if the middle half of the ratios has 1 in it."""
    if speed.speedup_low > 1:
        return f", and the network answers {speed.speedup:.2f} times as fast"
    if speed.speedup_high < 1:
        return f", yet the network got slower, {speed.speedup:.2f} times the speed"
    ratios = f"{speed.speedup:.2f}×, quartiles {speed.speedup_low:.2f}× to {speed.speedup_high:.2f}×"
    return f"; a difference in speed doesn't stand out here (median of paired passes {ratios})"

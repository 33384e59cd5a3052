"""The check-up beside torch-audit 0.3.0: planted faults found and missed, and false alarms.

Every fault is put into two architectures at least (`bench/checkup_suite/`). "Found" is a finding with the
fault's id, at the layer where it was put, with the remedy expected; "mended" are those whose finding is gone
after the remedy. False alarms are errors and warnings that are neither the planted fault nor follow from it:
in healthy subjects before planting, in planted and in mended ones, in 62 healthy networks of timm and
torchvision (in training mode and in evaluation mode), and in deliberate uses.

torch-audit looks at the same subjects while they train for a few steps (`bench/checkup_audit.py`). Found is
any rule that can be taken for the fault or its symptom, at any layer, if it didn't warn of the same layer in
the healthy subject too; of faults that it has no rule for, none can be. Its false alarms are warnings and
errors of rules about batch norm (TA304, TA400, TA402, TA501); those of all rules but hints at speed (TA2xx)
are in brackets. Its rule for a bias before a batch norm warns of what is advice here.

Faults between processes are looked for in two processes; torch-audit knows of one.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import checkup_audit, checkup_cost
from bench.checkup_suite import deliberate, healthy, planted_processes
from bench.checkup_suite.planted import Planted, Subject, examine
from bench.checkup_suite.planted_all import CASES
from bench.clock import markdown
from convscope.checkup import Checkup

_GRAVE = ("error", "warning")
_ABOUT_NORMS = {"TA304", "TA400", "TA402", "TA501"}


@dataclass
class _Row:
    """Counts of one fault."""

    number: int
    planted: int = 0
    found: int = 0
    mended: int = 0
    found_by_audit: int = 0
    rules: set[str] = field(default_factory=set)


@dataclass
class _Alarms:
    """Counts of subjects without a fault, and how many of them alarmed anyway."""

    subjects: int = 0
    ours: int = 0
    audit: int = 0
    audit_any: int = 0


def table() -> str:
    """Run everything and return the tables."""
    rows: dict[str, _Row] = {}
    alarms: dict[str, _Alarms] = defaultdict(_Alarms)
    for case in CASES:
        _planted(case, rows, alarms)
    _between_processes(rows, alarms)
    for case in healthy.CASES:
        subject = case.make()
        _alarmed(alarms["healthy networks, training mode"], subject, examine(subject))
        subject = case.make()
        subject.model.eval()
        _alarmed(alarms["healthy networks, evaluation mode"], subject, examine(subject))
    for use in deliberate.CASES:
        torch.manual_seed(0)
        _alarmed(alarms["deliberate uses"], use.make(), examine(use.make()))
    return "\n\n".join([_faults(rows), _false_alarms(alarms), checkup_cost.table()])


def _planted(case: Planted, rows: dict[str, _Row], alarms: dict[str, _Alarms]) -> None:
    row = rows.setdefault(case.fault, _Row(case.number))
    torch.manual_seed(0)
    before = case.healthy()
    checked = examine(before)
    _alarmed(alarms["before planting"], case.healthy(), checked)
    subject = case.plant(before)
    checked = examine(subject)
    row.planted += 1
    right = _is_found(case, checked)
    row.found += right
    alarms["planted, other faults"].subjects += 1
    alarms["planted, other faults"].ours += bool(_grave(checked) - {case.fault, *case.expects})
    checked = examine(case.mend(subject))
    row.mended += right and case.fault not in {finding.fault for finding in checked.findings}
    alarms["mended"].subjects += 1
    alarms["mended"].ours += bool(_grave(checked))
    _audited(case, row)


def _is_found(case: Planted, checked: Checkup) -> bool:
    return any(
        finding.fault == case.fault
        and finding.address.startswith(case.address)
        and case.remedy in finding.remedy
        for finding in checked.findings
    )


def _audited(case: Planted, row: _Row) -> None:
    """Whether torch-audit has a rule for the fault that warns of the planted subject only."""
    rules = set(checkup_audit.RULES.get(case.fault, ()))
    row.rules |= rules
    if rules and checkup_audit.is_installed():
        before = checkup_audit.audit(case.healthy())
        after = checkup_audit.audit(case.plant(case.healthy()))
        row.found_by_audit += any(rule in rules for rule, _ in after - before)


def _between_processes(rows: dict[str, _Row], alarms: dict[str, _Alarms]) -> None:
    with TemporaryDirectory() as folder:
        of_all = planted_processes.run(Path(folder))
    for case in planted_processes.CASES:
        row = rows.setdefault(case.fault, _Row(case.number))
        row.rules |= set(checkup_audit.RULES.get(case.fault, ()))
        row.planted += 1
        right = all(
            any(
                fault == case.fault and address.startswith(case.address) and case.remedy in remedy
                for fault, _, address, remedy in found[str(case), "planted"]
            )
            for found in of_all
        )
        row.found += right
        row.mended += right and not any(
            fault == case.fault for found in of_all for fault, *_ in found[str(case), "mended"]
        )
        for state, name in (("healthy", "before planting"), ("mended", "mended")):
            alarms[name].subjects += 1
            alarms[name].ours += any(
                severity in _GRAVE for found in of_all for _, severity, *_ in found[str(case), state]
            )


def _alarmed(alarms: _Alarms, subject: Subject, checked: Checkup) -> None:
    """Count the alarms of a healthy subject, of which torch-audit uses up a fresh one."""
    alarms.subjects += 1
    alarms.ours += bool(_grave(checked))
    if checkup_audit.is_installed():
        rules = {rule for rule, _ in checkup_audit.audit(subject) if not rule.startswith("TA2")}
        alarms.audit += bool(rules & _ABOUT_NORMS)
        alarms.audit_any += bool(rules)


def _grave(checked: Checkup) -> set[str]:
    return {finding.fault for finding in checked.findings if finding.severity in _GRAVE}


def _faults(rows: dict[str, _Row]) -> str:
    lines = [
        (
            str(row.number or "–"), fault, *_counts(row), ", ".join(sorted(row.rules)) or "none",
            str(row.found_by_audit),
        )
        for fault, row in sorted(rows.items(), key=lambda entry: (entry[1].number, entry[0]))
    ]  # fmt: skip
    total = ("", "all", *_total(rows.values()), "", str(sum(row.found_by_audit for row in rows.values())))
    header = ("no.", "fault", "planted", "found", "missed", "mended", "torch-audit's rules", "found by it")
    return markdown(header, [*lines, total])


def _counts(row: _Row) -> tuple[str, ...]:
    return str(row.planted), str(row.found), str(row.planted - row.found), str(row.mended)


def _total(rows: Iterable[_Row]) -> tuple[str, ...]:
    given = list(rows)
    sums = [sum(getattr(row, name) for row in given) for name in ("planted", "found", "mended")]
    return str(sums[0]), str(sums[1]), str(sums[0] - sums[1]), str(sums[2])


def _false_alarms(alarms: dict[str, _Alarms]) -> str:
    lines = [
        (
            name, str(count.subjects), str(count.ours),
            f"{count.audit} ({count.audit_any})" if name not in ("planted, other faults", "mended") else "–",
        )
        for name, count in alarms.items()
    ]  # fmt: skip
    return markdown(("subjects without a (further) fault", "number", "alarmed", "torch-audit"), lines)

"""torch-audit on the suites of the check-up: the subjects as they are, its own hooks, its own rules.

A subject that has data is trained for as many steps as that has batches, at most eight; a subject that has a
loop runs it. The wrapper is the one that its documentation calls the one with the least code,
``autopatch(model, optimizer)``, looking at every step; static and initial rules run too. A subject without an
optimizer gets plain SGD, which no rule has anything against.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench.checkup_suite.planted import Subject
from convscope.checkup.measuring.batches import Batch, batches_of

RULES: dict[str, tuple[str, ...]] = {
    "accumulated-batches": ("TA304",),
    "cancellation": ("TA301",),
    "dead-channel": ("TA103", "TA105", "TA405"),
    "dead-gamma": ("TA103", "TA105", "TA405"),
    "decayed-gains": ("TA402",),
    "foreign-optimizer": ("TA104",),
    "leaking-batch": ("TA304",),
    "micro-batch": ("TA304",),
    "non-finite-statistics": ("TA100",),
    "one-value-per-channel": ("TA304",),
    "padding-in-statistics": ("TA302",),
    "recomputed-updates": ("TA501",),
    "redundant-bias": ("TA400",),
    "scale-drift": ("TA102",),
    "shared-over-domains": ("TA501",),
    "unsynchronised-statistics": ("TA304",),
    "wrong-axis": ("TA303",),
}
"""The rules that can be taken for a fault, or for its symptom; faults that aren't here have none."""

_MOST_STEPS = 8


def is_installed() -> bool:
    """Return whether torch-audit can be run."""
    return find_spec("torch_audit") is not None


def audit(subject: Subject) -> set[tuple[str, str]]:
    """Return what warns or worse: rules' ids, and the layers that they name; the subject is used up.

    What its steps raise ends them, as it would for its user: what was found until then counts.
    """
    from torch_audit import Auditor, Severity

    model, optimizer = subject.model, subject.optimizer
    if optimizer is None:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trainable, 0.01) if trainable else None
    auditor = Auditor(model, optimizer=optimizer, every_n_steps=1, suppress_internal_errors=True)
    auditor.autopatch()
    try:
        if subject.train is not None:
            subject.train()
        else:
            _train(model, optimizer, subject)
    except Exception as error:
        print(f"torch-audit: a step failed ({type(error).__name__})")
    found = auditor.finish().findings
    auditor.unpatch()
    return {(f.rule_id, f.module_path or "") for f in found if f.severity >= Severity.WARN}


def _train(model: nn.Module, optimizer: Any, subject: Subject) -> None:
    for batch in islice(_batches(model, subject.data), _MOST_STEPS):
        outputs = model(*batch.args, **batch.kwargs)
        loss = _loss(subject, outputs, batch.labels)
        if loss.requires_grad and optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _batches(model: nn.Module, data: Any) -> Iterator[Batch]:
    """What a check-up takes for batches; none in a shape."""
    if data is None or (isinstance(data, tuple) and all(isinstance(size, int) for size in data)):
        return iter(())
    return batches_of(model, data)


def _loss(subject: Subject, outputs: Any, labels: Any) -> Tensor:
    if subject.loss is not None:
        return subject.loss(outputs, labels)
    logits = outputs if isinstance(outputs, Tensor) else next(iter(outputs))
    if isinstance(labels, Tensor) and not labels.is_floating_point() and logits.dim() >= 2:
        return nn.functional.cross_entropy(logits.float(), labels)
    return logits.float().square().mean()

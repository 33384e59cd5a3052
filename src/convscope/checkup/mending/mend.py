"""``mend``: check a network, apply the safe remedies to a copy of it, and check that."""

from dataclasses import replace
from typing import Any

from torch import nn

# isort: off
# ruff: noqa: F401
# Imported in the order in which repairs are made.
from convscope.checkup.mending import settings
from convscope.checkup.mending import biases
from convscope.checkup.mending import statistics

# isort: on
from convscope.checkup.examine import assemble, depth_of, measure
from convscope.checkup.measuring.batches import batches_of, preserved_order
from convscope.checkup.measuring.losses import Loss
from convscope.checkup.measuring.observe import Subject
from convscope.checkup.mending.copying import copied
from convscope.checkup.mending.repairs import all_repairs
from convscope.checkup.mending.result import Left, Mended, Mending
from convscope.checkup.mending.workshop import Reread, Workshop
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan
from convscope.checkup.result import Checkup, StateProof
from convscope.core.finding import Finding
from convscope.core.fingerprint import fingerprint
from convscope.core.inference import outside_inference_mode
from convscope.core.preserved import preserved_rng


def mend(
    model: nn.Module,
    data: Any = None,
    loss: Loss | None = None,
    optimizer: Any = None,
    reference: Any = None,
    plan: CheckupPlan | None = None,
) -> Mending:
    """Return a copy of a network with its faults mended as far as that is safe, and the check-up of both.

    In order: momentum, precision, ε (if the reference has another one), layers that are meant to be frozen;
    redundant biases, moved into running means; at last, if anything is wrong with them, all running
    statistics, estimated from the data, if there is enough of it and the new ones prove better. Not done,
    since somebody has to decide: other batches, other layers, another optimizer, training on.

    Args:
        model: as for :func:`convscope.checkup.checkup`; it isn't changed.
        data: as for the check-up, but it must be readable several times; a loader's own generators come back
            as they were. Of five batches and more every fifth is held out, to try new statistics on.
        loss: as for the check-up.
        optimizer: as for the check-up; it doesn't hold the copy's parameters.
        reference: as for the check-up.
        plan: as for the check-up.

    Returns:
        :class:`Mending`: the copy, both check-ups, what was done and what was left.

    Raises:
        ConvscopeError: as for the check-up; the data can be read only once; the model can't be copied,
            or its copy shares parameters, buffers or modules with it.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> found = mend(net, torch.randn(64, 3, 8, 8))
        >>> ("redundant-bias", "0#1") in found.gone, ("young-statistics", "1#1") in found.gone
        (True, True)
        >>> found.after.findings, found.model[0].bias, net[0].bias is None
        ((), None, False)
    """
    plan = plan or CheckupPlan()
    with outside_inference_mode(), preserved_order(data), preserved_rng():
        start = fingerprint(model)
        found = _mending(Subject(model, loss, optimizer, reference, plan), data)
        end = fingerprint(model)
    return replace(found, state=StateProof(start, end, start == end))


def _mending(subject: Subject, data: Any) -> Mending:
    """Check, mend a copy, and check that; without the proof."""
    model, plan, depth = subject.model, subject.plan, depth_of(data)
    reread = None if depth == "static" else Reread(data, plan.max_batches)
    observation, state = measure(subject, data if reread is None else reread)
    before = assemble(observation, depth, state)
    copy = copied(model)
    first = None if reread is None else next(batches_of(copy, reread))
    mended, left = _made(Workshop(copy, observation, reread, first, subject.loss, plan), before)
    after = before
    if mended:
        # The optimizer holds the given model's parameters, so that facts about it are those from before.
        again, proof = measure(
            replace(subject, model=copy, optimizer=None), data if reread is None else reread
        )
        after = assemble(replace(again, optimizer=observation.optimizer), depth, proof)
    return Mending(before, after, tuple(mended), _left(after, left, mended), copy)


def _made(workshop: Workshop, before: Checkup) -> tuple[list[Mended], list[Left]]:
    """Make every repair that a finding asks for."""
    mended, left = [], []
    for repair in all_repairs():
        findings = tuple(finding for finding in before.findings if finding.fault in repair.faults)
        for result in repair.make(workshop, findings) if findings else ():
            if isinstance(result, Mended):
                mended.append(result)
            else:
                left.append(result)
    return mended, left


def _left(after: Checkup, left: list[Left], mended: list[Mended]) -> tuple[Left, ...]:
    """Why each of the findings that remain is there."""
    reasons = {(each.fault, each.address): each.reason for each in reversed(left)}  # the first one counts
    tried = {fault for repair in mended for fault in repair.faults}

    def reason(finding: Finding) -> str:
        if (finding.fault, finding.address) in reasons:
            return reasons[finding.fault, finding.address]
        if finding.fault in tried:
            return "it is still found after the repair"
        return f"it needs a decision: {finding.remedy}" if finding.remedy else "it is a fact"

    still = [(each.fault, each.address) for each in after.findings]
    in_part = [] if after.depth == "static" else [key for key in reasons if key not in still]
    return (
        *(Left(each.fault, each.address, reason(each)) for each in after.findings),
        *(Left(*key, reasons[key]) for key in in_part),
    )

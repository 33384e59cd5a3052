"""``mend``: check a network, apply the safe remedies to a copy of it, and check that."""

import copy
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
from convscope.checkup.measuring.batches import batches_of
from convscope.checkup.measuring.losses import Loss
from convscope.checkup.measuring.observe import Subject
from convscope.checkup.mending.repairs import all_repairs
from convscope.checkup.mending.result import Left, Mended, Mending
from convscope.checkup.mending.workshop import Reread, Workshop
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan
from convscope.checkup.result import Checkup
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding
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
    statistics, estimated from the data. Not done, since somebody has to decide: other batches, other layers,
    another optimizer, training on.

    Args:
        model: as for :func:`convscope.checkup.checkup`; it isn't changed.
        data: as for the check-up, but it must be readable several times.
        loss: as for the check-up.
        optimizer: as for the check-up; it doesn't hold the copy's parameters.
        reference: as for the check-up.
        plan: as for the check-up.

    Returns:
        :class:`Mending`: the copy, both check-ups, what was done and what was left.

    Raises:
        ConvscopeError: as for the check-up; the data can be read only once; the model can't be copied.

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
    depth = depth_of(data)
    reread = None if depth == "static" else Reread(data, plan.max_batches)
    subject = Subject(model, loss, optimizer, reference, plan)
    observation, state = measure(subject, data if reread is None else reread)
    before = assemble(observation, depth, state)
    copied = _copied(model)
    with preserved_rng():
        first = None if reread is None else next(batches_of(copied, reread))
    mended, left = _made(Workshop(copied, observation, reread, first, loss, plan), before)
    after = before
    if mended:
        # The optimizer holds the given model's parameters, so that facts about it are those from before.
        again, state = measure(
            replace(subject, model=copied, optimizer=None), data if reread is None else reread
        )
        after = assemble(replace(again, optimizer=observation.optimizer), depth, state)
    return Mending(before, after, tuple(mended), _left(after, left, mended), copied)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a module's own __deepcopy__ may raise anything
        raise ConvscopeError(
            f"model of type {type(model).__name__} that can't be copied ({type(error).__name__}: {error})",
            "a model for copy.deepcopy, for repairs are made to a copy",
            "follow the remedies of the check-up by hand",
        ) from error


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

    return tuple(Left(each.fault, each.address, reason(each)) for each in after.findings)

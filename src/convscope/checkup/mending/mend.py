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
from convscope.checkup.mending import freezing

# isort: on
from convscope.checkup.examine import assemble, depth_of, measure
from convscope.checkup.measuring.batches import batches_of, preserved_order
from convscope.checkup.measuring.criterion import Loss
from convscope.checkup.measuring.image_data import as_batches, num_classes_of
from convscope.checkup.measuring.loss_state import preserved_loss, with_loss
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.mending.copying import copied
from convscope.checkup.mending.repairs import all_repairs
from convscope.checkup.mending.result import Left, Mended, Mending
from convscope.checkup.mending.workshop import Reread, Workshop
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan, checked
from convscope.checkup.result import Checkup, StateProof
from convscope.core.finding import Finding
from convscope.core.fingerprint import fingerprint
from convscope.core.inference import outside_inference_mode
from convscope.core.preserved import preserved_rng
from convscope.probe.forms import settled
from convscope.tape import require_module

_FREEZING = ("frozen-but-tracking",)


def mend(
    model: nn.Module,
    data: Any = None,
    loss: Loss | None = None,
    optimizer: Any = None,
    reference: Any = None,
    plan: CheckupPlan | None = None,
) -> Mending:
    """Return a copy of a network with its faults mended as far as that is safe, and the check-up of both.

    In order: momentum, precision, ε (if the reference has another one); redundant biases, moved into running
    means; if anything is wrong with them, all running statistics, estimated from the data, if there is enough
    of it and the new ones prove better; at last layers that are meant to be frozen, if their statistics are
    right by then. Not done, since somebody has to decide: other batches, other layers, another optimizer,
    training on.

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
    require_module(model)
    data, proved = as_batches(data), with_loss(model, loss)
    subject = Subject(model, loss, optimizer, reference, checked(plan), num_classes_of(data))
    with outside_inference_mode(), preserved_order(data):
        start = fingerprint(proved)
        # A loader without a generator of its own draws from the global one.
        with preserved_rng(), preserved_loss(loss):
            found = _mending(subject, settled(model, data, has_loss=loss is not None))
        end = fingerprint(proved)
    return replace(found, state=StateProof(start, end, start == end))


def _mending(subject: Subject, data: Any) -> Mending:
    """Check, mend a copy, and check that, in two stages; without the proof."""
    plan, depth = subject.plan, depth_of(data)
    reread = None if depth == "static" else Reread(data, plan.max_batches)
    given = data if reread is None else reread
    observation, state = measure(subject, given)
    course = [assemble(observation, depth, state)]
    copy = copied(subject.model)
    first = None if reread is None else next(batches_of(copy, reread))
    optimizer, done, undone = observation.optimizer, [], []
    for last in (False, True):
        shop = Workshop(copy, observation, course[-1], reread, first, subject.criterion, plan)
        mended, left = _made(shop, last)
        if mended:
            # The optimizer holds the given model's parameters, so that facts about it are those from before.
            again, proof = measure(replace(subject, model=copy, optimizer=None), given)
            observation = replace(again, optimizer=optimizer)
            course.append(assemble(observation, depth, proof))
        done += mended
        undone += left
    hidden = _hidden(course[-2], course[-1], done[-1]) if done else ()
    return Mending(
        course[0], course[-1], tuple(done), _left(course[-1], undone, done, hidden), copy, hidden=hidden
    )


def _made(workshop: Workshop, last: bool) -> tuple[list[Mended], list[Left]]:
    """Make every repair of a stage that a finding asks for."""
    mended, left = [], []
    for repair in all_repairs():
        findings = tuple(each for each in workshop.found.findings if each.fault in repair.faults)
        for result in repair.make(workshop, findings) if findings and repair.last is last else ():
            if isinstance(result, Mended):
                mended.append(result)
            else:
                left.append(result)
    return mended, left


def _hidden(before: Checkup, after: Checkup, latest: Mended) -> tuple[tuple[str, str], ...]:
    """What was found before layers were frozen, and isn't judged since, though nothing else was changed."""
    if latest.faults != _FREEZING:
        return ()
    still = {(finding.fault, finding.address) for finding in after.findings}
    found = [(each.fault, each.address) for each in before.findings if each.fault not in latest.faults]
    return tuple(each for each in found if each not in still)


def _left(
    after: Checkup, left: list[Left], mended: list[Mended], hidden: tuple[tuple[str, str], ...]
) -> tuple[Left, ...]:
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
        *(Left(*key, "it isn't judged any more, since layers are frozen") for key in hidden),
        *(Left(*key, reasons[key]) for key in in_part),
    )

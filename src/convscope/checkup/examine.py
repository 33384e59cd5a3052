"""``checkup``: measure a network, judge it, and put both into one result."""

from dataclasses import replace
from typing import Any

from torch import nn

from convscope.checkup.expected import is_expected
from convscope.checkup.explain import page_names
from convscope.checkup.health import rows_of
from convscope.checkup.judging.faults import judge
from convscope.checkup.judging.misled import by_blame
from convscope.checkup.measuring.batches import preserved_order
from convscope.checkup.measuring.criterion import Loss
from convscope.checkup.measuring.image_data import as_batches, num_classes_of
from convscope.checkup.measuring.loss_state import preserved_loss, with_loss
from convscope.checkup.measuring.observe import observe_data, observe_modules
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan, checked
from convscope.checkup.result import Checkup, Depth, StateProof
from convscope.core.fingerprint import fingerprint
from convscope.core.inference import outside_inference_mode
from convscope.probe.forms import settled
from convscope.tape import require_values
from convscope.tape.accepted import require_eager


def checkup(
    model: nn.Module,
    data: Any = None,
    loss: Loss | None = None,
    optimizer: Any = None,
    reference: Any = None,
    plan: CheckupPlan | None = None,
) -> Checkup:
    """Return what is wrong with a network's batch norms: findings with evidence and remedy.

    With data, every batch runs twice in evaluation mode (with running statistics, and with batch statistics),
    and the first one runs forward and backward in training mode: of 64 samples or more, 32, which run forward
    once more where dropout draws. That is at most four passes over the data. The model comes back as it was,
    and a loader's own generators do, also after an exception. In a distributed run, statistics are compared
    between processes if all of them run the check-up.

    Args:
        model: any eager PyTorch module, on any one device. Given in training mode, its batch norms in
            evaluation mode are taken for frozen on purpose.
        data: a batch (images, or ``(images, labels)``, or a dict with ``"labels"``), or an iterable of
            batches as they are trained on; an input shape such as ``(2, 3, 224, 224)``, or None, for what
            can be told without data. Of a data set of :func:`convscope.data.load_data`, the training images
            are read, in shuffled batches of 32.
        loss: ``loss(outputs, labels)`` → scalar tensor, a mean over the batch (what says that it is a sum, as
            ``reduction="sum"`` does, is divided by the number of samples); without it cross-entropy if labels
            are integers (of several outputs, of the one that may be scores of their classes), or what a
            network that is given the labels returns as ``"loss"``. One that is or holds a module comes back
            as it was, too.
        optimizer: the one that trains the model, if its groups are to be checked too.
        reference: what the model was made from, if that is to be checked too: the network before its layers
            were converted, the one whose weights the model averages, the student of a teacher, or the
            checkpoint that was loaded (a state dict or its file).
        plan: a limit on batches, attribution of the gap, progress.

    Raises:
        ConvscopeError: the model doesn't take the data, or is TorchScript; there is no batch; images hold
            NaN; labels aren't classes of the network.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.9), nn.ReLU())
        >>> [(finding.fault, finding.address) for finding in checkup(net, (2, 3, 8, 8)).findings]
        [('young-statistics', '1#1'), ('momentum-convention', '1#1')]
        >>> found = checkup(net, torch.randn(64, 3, 8, 8))
        >>> [finding.fault for finding in found.findings if finding.address == "0#1"]
        ['redundant-bias']
    """
    data = as_batches(data)
    subject = Subject(model, loss, optimizer, reference, checked(plan), num_classes_of(data))
    observation, state = measure(subject, data)
    return assemble(observation, depth_of(data), state)


def measure(subject: Subject, data: Any) -> tuple[Observation, StateProof]:
    """Return what a check-up judges, at the depth that the data allows, and hashes of the model around it.

    Args:
        subject: its model comes back as it was.
        data: as for :func:`checkup`.

    Raises:
        ConvscopeError: as for :func:`checkup`.
    """
    require_values(subject.model)
    require_eager(subject.model)
    proved = with_loss(subject.model, subject.loss)
    with outside_inference_mode(), preserved_order(data):
        before = fingerprint(proved)
        observe = observe_modules if depth_of(data) == "static" else observe_data
        with preserved_loss(subject.loss):
            observation = observe(subject, settled(subject.model, data, has_loss=subject.loss is not None))
        after = fingerprint(proved)
    return observation, StateProof(before, after, before == after)


def depth_of(data: Any) -> Depth:
    """Return how deep a check-up goes with this data: ``"static"`` for None and for an input shape."""
    is_shape = isinstance(data, tuple) and bool(data) and all(type(size) is int for size in data)
    return "static" if data is None or is_shape else "data"


def assemble(observation: Observation, depth: Depth, state: StateProof | None = None) -> Checkup:
    """Return the check-up of an observation: every fault judged, declared ones apart, a row per batch norm.

    Args:
        observation: what was measured.
        depth: how deep that went.
        state: the model's hashes before and after; None where nothing is promised, as in a training run.
    """
    found, unjudged = judge(observation)
    pages = page_names()
    judged = tuple(replace(each, page=_page(each.fault)) if each.fault in pages else each for each in found)
    declared = tuple(finding for finding in judged if is_expected(finding.fault, finding.address))
    gap = observation.gap
    return Checkup(
        findings=tuple(finding for finding in judged if finding not in declared),
        gap=None if gap is None else gap.difference,
        gap_error=None if gap is None else gap.error,
        eval_loss=None if gap is None else gap.eval_loss,
        batch_loss=None if gap is None else gap.batch_loss,
        layers=rows_of(observation.norms),
        num_samples=observation.num_samples,
        num_batches=observation.num_batches,
        depth=depth,
        unchecked=(*observation.unchecked, *unjudged),
        expected=declared,
        attribution=by_blame(observation),
        percentiles=() if observation.run is None else observation.run.percentiles,
        state=state,
        loss_of="" if gap is None else gap.output,
        loss_unit="" if gap is None else gap.unit,
    )


def _page(fault: str) -> str:
    return f"convscope checkup --explain {fault}"

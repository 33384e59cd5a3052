"""``checkup``: measure a network, judge it, and put both into one result."""

from typing import Any

from torch import nn

from convscope.checkup.expected import is_expected
from convscope.checkup.judging.faults import judge
from convscope.checkup.judging.faults.gains import dead_by_gain, dead_on_data
from convscope.checkup.judging.residuals import residuals
from convscope.checkup.measuring.losses import Loss
from convscope.checkup.measuring.observe import Subject, observe_data, observe_modules
from convscope.checkup.observed import NormCall
from convscope.checkup.plan import CheckupPlan
from convscope.checkup.result import Checkup, NormHealth
from convscope.core.inference import outside_inference_mode
from convscope.tape import require_values


def checkup(
    model: nn.Module,
    data: Any = None,
    loss: Loss | None = None,
    optimizer: Any = None,
    reference: Any = None,
    plan: CheckupPlan | None = None,
) -> Checkup:
    """Return what is wrong with a network's batch norms: findings with evidence and remedy.

    With data, every batch runs twice in evaluation mode (with running statistics, and with batch
    statistics), and up to 32 samples of the first run forward and backward in training mode. The model comes
    back as it was, also after an exception.

    Args:
        model: any eager PyTorch module, on any one device. Given in training mode, its batch norms in
            evaluation mode are taken for frozen on purpose.
        data: a batch (images, or ``(images, labels)``, or a dict with ``"labels"``), or an iterable of
            batches as they are trained on; an input shape such as ``(2, 3, 224, 224)``, or None, for what
            can be told without data.
        loss: ``loss(outputs, labels)`` → scalar tensor; cross-entropy if labels are integers.
        optimizer: the one that trains the model, if its groups are to be checked too.
        reference: what the model was made from, if that is to be checked too: the network before its layers
            were converted, the one whose weights the model averages, the student of a teacher, or the
            checkpoint that was loaded (a state dict or its file).
        plan: a limit on batches, attribution of the gap, progress.

    Raises:
        ConvscopeError: the model doesn't take the data; there is no batch; images hold NaN; labels aren't
            classes of the network.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.9), nn.ReLU())
        >>> [(finding.fault, finding.address) for finding in checkup(net, (2, 3, 8, 8)).findings]
        [('young-statistics', '1#1'), ('momentum-convention', '1#1')]
        >>> found = checkup(net, torch.randn(64, 3, 8, 8))
        >>> [finding.fault for finding in found.findings if finding.address == "0#1"]
        ['redundant-bias']
    """
    require_values(model)
    static = data is None or _is_shape(data)
    with outside_inference_mode():
        subject = Subject(model, loss, optimizer, reference, plan or CheckupPlan())
        observation = observe_modules(subject, data) if static else observe_data(subject, data)
    judged, unjudged = judge(observation)
    declared = tuple(finding for finding in judged if is_expected(finding.fault, finding.address))
    gap = observation.gap
    return Checkup(
        findings=tuple(finding for finding in judged if finding not in declared),
        gap=None if gap is None else gap.difference,
        gap_error=None if gap is None else gap.error,
        eval_loss=None if gap is None else gap.eval_loss,
        batch_loss=None if gap is None else gap.batch_loss,
        layers=tuple(_row(norm) for norm in observation.norms),
        num_samples=observation.num_samples,
        num_batches=observation.num_batches,
        depth="static" if static else "data",
        unchecked=(*observation.unchecked, *unjudged),
        expected=declared,
        attribution=observation.attribution,
    )


def _row(norm: NormCall) -> NormHealth:
    population, found = norm.population, residuals(norm, norm.population)
    mean_at = 0 if found is None else int(found.mean.abs().argmax())
    variance_at = 0 if found is None else int(found.variance.abs().argmax())
    by_gain_C, on_data_C = dead_by_gain(norm), dead_on_data(norm)
    dead = [dead_C for dead_C in (by_gain_C, on_data_C) if dead_C is not None]
    gains = None if norm.gamma is None else norm.gamma.abs()
    return NormHealth(
        address=norm.address,
        path=norm.path,
        channels=norm.channels,
        frozen=norm.frozen,
        num_values=None if population is None else population.batch_values,
        effective_values=None if population is None else population.effective_values,
        momentum=norm.momentum,
        eps=norm.eps,
        num_batches_tracked=norm.num_batches_tracked,
        mean_residual=None if found is None else float(found.mean[mean_at].abs()),
        mean_error=None if found is None else float(found.mean_error[mean_at]),
        variance_residual=None if found is None else float(found.variance[variance_at].abs()),
        variance_error=None if found is None else float(found.variance_error[variance_at]),
        stale_channels=None if found is None else int(found.stale.sum()),
        dead_channels=int(sum(dead[1:], start=dead[0]).bool().sum()) if dead else None,
        gamma_range=None
        if gains is None
        else (float(gains.min()), float(gains.median()), float(gains.max())),
    )


def _is_shape(data: Any) -> bool:
    return isinstance(data, tuple) and bool(data) and all(type(size) is int for size in data)

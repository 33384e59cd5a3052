"""Running statistics estimated anew, from data: what they should be in the network as it is deployed.

Batch norm's running averages are right only if the weights stood still while they were taken. They are too
young after few steps, they belong to other weights after averaging (SWA, EMA), pruning or quantisation, and
to other data after a change of domain. The remedy is to run data and take the statistics of all of it; most
tools do so wrongly: they weigh batches of 1,000 and of 2 alike, average variances of batches (which leaves
out what lies between them), or lose the variance to cancellation where the mean is large.

What the statistics are *of* matters as much. Inputs that a layer has where those before it normalise by each
batch, as in training, aren't those that it has at test time. The distance from the latter, the residual,
tells. Measured: 8 convolutions with batch norm, trained on digits in batches of 2; 1,300 samples; the largest
residual of any channel of any layer, smallest and largest of three trainings; its standard error is 0.01 to
0.02.

============================  ============  ============  ==============  ==========
layers normalise by           batch 2       batch 16      batch 200       16, sorted
============================  ============  ============  ==============  ==========
each batch                    0.19-0.20     0.018-0.022   0.0013-0.0031   0.33-0.43
all samples so far            0.033-0.039   0.030-0.039   0.025-0.030     0.10-0.43
the latest 64, at least       0.008-0.017   0.007-0.014   0.0013-0.0031   0.28-0.32
the final statistics          below 1e-7    below 1e-7    below 1e-7      below 1e-7
============================  ============  ============  ==============  ==========

The third is the default: below the standard error, for one pass and one more for the proof. For the last,
layers are measured one after the other, which takes about half as many passes as there are layers; it is
right on data sorted by class, too.
"""

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.inference import outside_inference_mode
from convscope.norm.recalibration.feeding import Feed
from convscope.norm.recalibration.held_out import Loss, LossPairs, loss_of, paired
from convscope.norm.recalibration.layers import (
    Norm,
    Previous,
    counter_of,
    fill,
    new_count,
    norms_of,
    unwrapped,
)
from convscope.norm.recalibration.passes import Passes, Statistics
from convscope.norm.recalibration.plan import RecalibrationPlan
from convscope.norm.recalibration.pools import Pooled
from convscope.norm.recalibration.processes import Processes
from convscope.norm.recalibration.result import HeldOut, Method, RecalibratedLayer, Recalibration, Residual
from convscope.norm.recalibration.sequence import in_sequence, proof, residuals, statistics_of
from convscope.probe import probing
from convscope.probe.forms import settled
from convscope.tape import require_module, require_values
from convscope.tape.accepted import require_eager


def recalibrate(
    model: nn.Module,
    data: Any,
    *,
    method: Method = "one-pass",
    held_out: Any = None,
    loss: Loss | None = None,
    plan: RecalibrationPlan | None = None,
) -> Recalibration:
    """Replace the running statistics of a model's batch norms by those of the data, and return the proof.

    Per channel, over all N values that a layer is given for all the data, pooled in float64 by true counts:
    running mean = Σx / N, running variance = Σ(x − mean)² / (N − 1). All modules are in evaluation mode
    (dropout and stochastic depth off). Which inputs those are is the method's:

    - ``"one-pass"``: those where batch norms normalise by the latest samples, at least 64 of them
      (``plan.window``). Good on shuffled data whatever the batch size, and all that data which can be read
      only once allows. A batch of one sample with maps of one value needs no exception, but if it is the
      first of all: that is normalised by the old statistics.
    - ``"sequential"``: exactly those in the network as it is deployed. Layers are measured one at a time,
      behind layers that have their new statistics: one pass a layer, which ends at the layer.

    Changed are ``running_mean`` and ``running_var``, in place and in their dtype, and
    ``num_batches_tracked``: the number of inputs pooled, or, where there is a momentum, as many as it takes
    to forget the starting values, and never fewer than before. Everything else (modes, hooks, momentum,
    gradients, generators) is as it was, and after an exception these too. Left as they are, and used so:
    layers frozen by :func:`convscope.norm.freeze`, layers in evaluation mode in a model that is in training
    mode, and layers that the data never reach; they are listed, as are batch norms without statistics.

    Where ``torch.distributed`` is initialised, every process of the group must call this; statistics are
    pooled over all, with any share of the data, and come out identical. Held-out losses are pooled, too.

    Args:
        model: any eager PyTorch module, on any one device with float64. Of a wrapper such as
            DistributedDataParallel the network within is run.
        data: a batch (a tensor, ``(inputs, labels)`` or a dict), or an iterable of batches, such as the
            training loader; 10³ to 10⁴ samples do. Which of the two a pair of floating tensors is,
            :func:`convscope.probe.forms.settled` says. It is read once and, for the residual, again; once a
            layer for ``"sequential"``; each time from the same state of the random number generators.
        method: ``"one-pass"`` or ``"sequential"``.
        held_out: data of the same forms with labels: if the new statistics make its loss worse by more than
            two standard errors, the old ones stay.
        loss: ``loss(outputs, labels)``, lower is better: a scalar tensor, or better one number a sample (for
            the standard error); None for cross-entropy with integer labels.
        plan: a limit on samples, the process group, progress, unusual models; see
            :class:`RecalibrationPlan`.

    Returns:
        :class:`Recalibration`: residuals of every layer before and after, as measured in evaluation mode;
        losses; whether the statistics were applied; ``undo()``.

    Raises:
        ConvscopeError: the model has no batch norm; there is no data, or it can be read only once for
            ``"sequential"``; the network fails; inputs or a layer's inputs are NaN or infinite (the first
            layer is named); a layer is given a single value; its statistics are beyond the range of its
            buffers.

    Source:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, section 3 and appendix; Chan,
        Golub and LeVeque, COMPSTAT 1982, equation 2.1, for pooling.

    Not covered: instance norm; batch norms that don't normalise by PyTorch's operator; batch norm as a
    function in a module's own code; tensor-parallel and sharded models.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
        >>> found = recalibrate(net, torch.randn(1000, 3).split(7))
        >>> found.applied, found.residual_before > 0.5, found.residual_after < 0.05
        (True, True, True)
        >>> found.undo()
        >>> net[1].running_var.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    plan = plan or RecalibrationPlan()
    network = _network(model, method)
    norms = norms_of(network)
    chosen = tuple(norm for norm in norms if norm.status is None)
    with outside_inference_mode():
        data, held_out = (settled(network, each, has_loss=loss is not None) for each in (data, held_out))
    feed = Feed(network, data, plan.forward, plan.max_samples)
    if method == "sequential" and not feed.is_repeatable:
        raise ConvscopeError(
            f"data that can be read once ({type(data).__name__}) for method 'sequential'",
            "data that can be read several times, such as a DataLoader or a list",
            'pass list(data), or method="one-pass"',
        )
    if not chosen:
        left = tuple(_left(norm) for norm in norms)
        return Recalibration(left, method, False, "no batch norm has statistics that may change", 0, 0, 0)
    trial = None if held_out is None else Feed(network, held_out, plan.forward)
    processes = Processes(plan.group)
    with outside_inference_mode(), probing(network) as probe, torch.no_grad():
        passes = Passes(probe, chosen, processes, plan.progress)
        estimate = _estimated(passes, feed, chosen, method, plan.window)
        losses = None if trial is None else _losses(passes, trial, loss, estimate, processes)
        ages = _ages(chosen, estimate, processes)
    # Here the model is as it was given.
    refusal = _refusal(losses, ages)
    undoing = None if refusal else _apply(chosen, estimate, ages)
    return Recalibration(
        layers=tuple(_entry(norm, estimate) for norm in norms),
        method=method,
        applied=not refusal,
        reason=refusal,
        num_samples=passes.seen.num_samples,
        num_batches=passes.seen.num_batches,
        num_passes=passes.number,
        held_out=losses,
        undoing=undoing,
    )


@dataclass(frozen=True, eq=False)
class _Estimate:
    """New statistics, and residuals of the old and of the new ones, by layer."""

    statistics: Statistics
    after: dict[str, Residual]
    before: dict[str, Residual]
    inputs: dict[str, Pooled]


def _network(model: Any, method: str) -> nn.Module:
    """The network to run, without wrappers."""
    if method not in get_args(Method):
        raise ConvscopeError(f"method={method!r}", "'one-pass' or 'sequential'", "pass one of these")
    require_module(model)
    network = unwrapped(model)
    require_values(network)
    require_eager(network)
    return network


def _estimated(passes: Passes, feed: Feed, norms: tuple[Norm, ...], method: Method, window: int) -> _Estimate:
    """Run the data, leaving the layers with the new statistics."""
    deployed, inputs = passes.first(feed, window)
    first = statistics_of(inputs)
    passes.put_back()
    before = residuals(norms, deployed)
    if method == "sequential":
        return _Estimate(*in_sequence(passes, feed, first, norms), before, inputs)
    if feed.is_repeatable:
        return _Estimate(first, proof(passes, feed, first, norms), before, inputs)
    passes.put(first)  # for its complaints
    return _Estimate(first, {}, before, inputs)


def _losses(
    passes: Passes, trial: Feed, loss: Loss | None, estimate: _Estimate, processes: Processes
) -> HeldOut:
    """Run every held-out batch with the old and with the new statistics."""

    def work() -> list[tuple[float, float, float]]:
        pairs = LossPairs()
        for batch in passes.batches(trial, "held-out data"):
            found = []
            for put in (passes.put_back, lambda: passes.put(estimate.statistics)):
                put()
                found.append(loss_of(loss, passes.run(batch), batch.labels, batch.num_samples))
            pairs.add(found[0], found[1], batch.num_samples)
        return pairs.rows

    return paired(processes.each(work))


def _ages(norms: tuple[Norm, ...], estimate: _Estimate, processes: Processes) -> dict[str, int]:
    """What every reached layer's ``num_batches_tracked`` becomes, the same in all processes."""
    calls = {path: found.num_calls for path, found in estimate.inputs.items()}
    own = {norm.path: new_count(norm.layer, calls[norm.path]) for norm in norms if norm.path in calls}
    all_ages = processes.each(lambda: own)
    return {path: max(ages[path] for ages in all_ages) for path in own}


def _apply(norms: tuple[Norm, ...], estimate: _Estimate, ages: dict[str, int]) -> Previous:
    """Change the model, and return the way back."""
    reached = [norm for norm in norms if norm.path in ages]
    previous = Previous.of(reached)
    with torch.no_grad():
        for norm in reached:
            fill(norm, *estimate.statistics[norm.path])
            counter = counter_of(norm)
            if counter is not None:
                counter.fill_(ages[norm.path])
    return previous


def _left(norm: Norm) -> RecalibratedLayer:
    assert norm.status is not None
    return RecalibratedLayer(norm.path, norm.status, norm.reason)


def _entry(norm: Norm, estimate: _Estimate) -> RecalibratedLayer:
    if norm.status is not None:
        return _left(norm)
    inputs = estimate.inputs.get(norm.path)
    if inputs is None:
        reason = "no batch_norm operator used its running statistics on the data"
        return RecalibratedLayer(norm.path, "unreached", reason)
    return RecalibratedLayer(
        path=norm.path,
        status="recalibrated",
        num_calls=inputs.num_calls,
        num_values=int(inputs.values.count.max()),
        before=estimate.before.get(norm.path),
        after=estimate.after.get(norm.path),
    )


def _refusal(losses: HeldOut | None, ages: dict[str, int]) -> str:
    """Why the model isn't changed; empty if it is."""
    if not ages:
        return "the data reached no batch norm whose statistics may change"
    if losses is None or not losses.is_worse:
        return ""
    error = "" if losses.error is None else f" ± {losses.error:.2g}"
    return (
        f"the held-out loss would rise by {losses.after - losses.before:.3g}{error}, "
        f"from {losses.before:.4g} to {losses.after:.4g}"
    )

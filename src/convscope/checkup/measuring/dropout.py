"""What dropout before a batch norm does to the variance that its running statistics are of.

The training step's samples are met twice with batch statistics: in that step, where dropout draws, and in
evaluation mode, where it passes everything. Both see the same samples, so that the ratio of the two variances
is that of what is learnt to what is met at test time. Its standard error is taken over groups of samples
(jackknife).

Dropout multiplies by m / (1 − p), with m drawn from {0, 1}: the mean stays, and to the variance p / (1 − p)
times the mean square is added (X. Li et al., "Understanding the Disharmony between Dropout and Batch
Normalization by Variance Shift", arXiv 1801.05134, section 3).

Axis letters: N samples, C channels, G groups.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.bias import TrainingStep
from convscope.checkup.measuring.flow import drops_before
from convscope.checkup.measuring.population import spread_of_images
from convscope.checkup.observed import DropoutShift, InputFacts, NormCall
from convscope.core.errors import ConvscopeError
from convscope.probe import Visit, probing
from convscope.tape import TrainingPlan, device_of, record

_GROUPS = 8


def dropout_sources(model: nn.Module, batch: Batch, step: TrainingStep) -> dict[str, tuple[str, ...]]:
    """Return the dropout calls that batch norm calls read the values of, by the latter's operator address.

    Empty if nothing was dropped in the training step. The model runs on simulated tensors only.

    Args:
        model: comes back as it was.
        batch: a few samples.
        step: what a training step on them has shown.

    Raises:
        ConvscopeError: the model can't be recorded in training mode.
    """
    if not step.drops:
        return {}
    tape = record(
        model,
        batch.inputs,
        TrainingPlan(),
        lambda net, args, kwargs: net(*args, **kwargs),
        device=device_of(model),
    )
    return {address: found for address in step.spreads if (found := drops_before(tape, address))}


def dropout_shifts(
    sources: dict[str, tuple[str, ...]], dropped: dict[str, Tensor], whole: dict[str, Tensor]
) -> dict[str, DropoutShift]:
    """Return what dropout does, by operator address of the batch norm calls that read dropped values.

    Args:
        sources: of :func:`dropout_sources`.
        dropped: images' spreads (N, C) with dropout.
        whole: those of the same images without.
    """
    return {
        address: shift
        for address, found in sources.items()
        if address in whole and (shift := _shift(found, dropped[address], whole[address])) is not None
    }


def with_dropout(norms: tuple[NormCall, ...], shifts: dict[str, DropoutShift]) -> tuple[NormCall, ...]:
    """Return batch norm calls with what dropout does to each."""
    return tuple(
        replace(norm, inputs=replace(norm.inputs or InputFacts(), dropout=shifts[norm.operator]))
        if norm.operator in shifts
        else norm
        for norm in norms
    )


def whole_spreads(model: nn.Module, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
    """Run a few samples with batch statistics and without dropout; return each batch norm call's spreads.

    Raises:
        ConvscopeError: the model fails.
    """
    found: dict[str, Tensor] = {}

    def by_batch(visit: Visit) -> Any:
        address, x = str(visit.site.address), visit.args[0]
        result = visit.run()
        if not step.by_batch.get(address, False) or x.numel() <= x.shape[1]:
            return result
        found[address] = spread_of_images(x)
        gamma, beta, eps = visit.args[1], visit.args[2], float(visit.args[7])
        return (F.batch_norm(x, None, None, gamma, beta, True, 0.0, eps), *result[1:])

    with probing(model) as probe, torch.no_grad():
        probe.around("batch_norm", by_batch)
        try:
            batch.run(model)
        except Exception as error:
            raise ConvscopeError(
                f"the network fails when it runs with batch statistics ({error})", "a run", "see the error"
            ) from error
    return found


def _shift(sources: tuple[str, ...], dropped_NC: Tensor, whole_NC: Tensor) -> DropoutShift | None:
    """Median over channels of the log ratio, and its standard error by leaving out one group at a time."""
    num_groups = min(_GROUPS, len(whole_NC))
    if whole_NC.shape != dropped_NC.shape or num_groups < 2:
        return None
    group_N = torch.arange(len(whole_NC)) * num_groups // len(whole_NC)
    left_G = [_log_ratio(dropped_NC[group_N != g], whole_NC[group_N != g]) for g in range(num_groups)]
    log_ratio, parts_G = _log_ratio(dropped_NC, whole_NC), torch.tensor(left_G)
    error = float(((num_groups - 1) * parts_G.var(correction=0)).sqrt())
    usable = torch.tensor([log_ratio, error]).isfinite().all()
    return DropoutShift(sources, log_ratio, error) if bool(usable) else None


def _log_ratio(dropped_NC: Tensor, whole_NC: Tensor) -> float:
    dropped_C, whole_C = dropped_NC.mean(0), whole_NC.mean(0)
    varies_C = (whole_C > 0) & (dropped_C > 0)
    if not bool(varies_C.any()):
        return float("nan")
    return float((dropped_C[varies_C] / whole_C[varies_C]).log().median())

"""Faults of the running statistics: wrong, not numbers, and what they cost at test time."""

from collections.abc import Iterator

import torch

from convscope.checkup.judging.domains import mixed_domains, separated
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.faults.young import is_only_young
from convscope.checkup.judging.gap_limit import is_too_large, tolerance_of, tolerated_gap
from convscope.checkup.judging.misled import stale_calls, to_blame
from convscope.checkup.judging.remedies import estimate_anew, never_moves
from convscope.checkup.judging.residuals import (
    MEAN_TOLERANCE,
    VARIANCE_TOLERANCE,
    Residuals,
)
from convscope.checkup.judging.staleness import ENOUGH_IMAGES, severity_of, stale_origins
from convscope.checkup.observed import NormCall, Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

_FEWEST_IMAGES = 8  # of fewer, Student's t makes a doubt of 5 standard errors one of 23 and more
_RETHINKING = "Wu and Johnson, Rethinking 'Batch' in BatchNorm, arXiv 2105.07576, section 3"


@fault("train-eval-gap")
def train_eval_gap(observation: Observation) -> Iterator[Finding | Unchecked]:
    """The loss at test time is above that with batch statistics, by more than chance and what is tolerated.

    Effect: the gap over what is tolerated; see :mod:`convscope.checkup.judging.gap_limit`.
    """
    gap = observation.gap
    if gap is None:
        return
    if gap.error is None:
        yield Unchecked("train-eval-gap", "one batch with a mean loss leaves no standard error; give several")
        return
    if not is_too_large(gap):
        return
    yield Finding(
        "train-eval-gap",
        "error",
        "self",
        (
            Evidence(
                "gap", gap.difference, gap.unit, "evaluation minus batch statistics, same batches, no dropout"
            ),
            Evidence("standard error of the gap", gap.error, gap.unit, "paired"),
            Evidence("loss in evaluation mode", gap.eval_loss, gap.unit),
            Evidence("loss with batch statistics", gap.batch_loss, gap.unit),
            tolerance_of(gap),
        ),
        f"the loss is {gap.difference:.3g} ± {gap.error:.1g} higher in evaluation mode than with batch "
        f"statistics on the same batches ({gap.eval_loss:.3g} against {gap.batch_loss:.3g}); "
        + _where(observation, gap.difference),
        _remedy(observation),
        _RETHINKING,
        effect=gap.difference / tolerated_gap(gap),
    )


def _remedy(observation: Observation) -> str:
    """What to do about the gap: new statistics, or separate ones if the layer to blame mixes domains."""
    most, mixed = to_blame(observation), mixed_domains(observation)
    if most is not None and most.path in mixed:
        remedy = separated(observation, most.path)
        return f"{most.path} is shared by inputs that differ, and no statistics fit them all: {remedy}"
    return estimate_anew(*observation.norms)


def _where(observation: Observation, gap: float) -> str:
    """Which layer the gap is due to: by its share of it if that was measured, else the first that is off."""
    most = to_blame(observation)
    if most is not None:
        return (
            f"switching {most.path} alone to batch statistics takes {most.difference:.2g} ± {most.error:.1g} "
            f"of the gap of {gap:.2g}"
        )
    start = next((norm for norm, found, _ in stale_calls(observation) if found), None)
    return f"it starts at {start.address}" if start else "no layer's running statistics stand out"


@fault("stale-statistics")
def stale_statistics(observation: Observation) -> Iterator[Finding | Unchecked]:
    """Running statistics beside those of the layer's inputs; only layers that are wrong themselves.

    A layer that is off at test time but right while the layers before it use batch statistics is misled, not
    stale. If all are, the first one is named. A layer that would be right without its starting values is
    young (the next fault).

    Effect: the largest residual of a stale channel, in units of its tolerance.
    """
    origins, num_misled = stale_origins(observation)
    if not origins:
        yield from _too_few(observation)
        return
    wrong = [(norm, found) for norm, found in origins if not is_only_young(norm)]
    for norm, found in sorted(wrong, key=lambda pair: -pair[1].size):
        yield _stale_finding(observation, norm, found, num_misled)


@fault("non-finite-statistics")
def non_finite_statistics(observation: Observation) -> Iterator[Finding]:
    """A running statistic is NaN or infinite, or a running variance negative.

    Effect: how many channels, since none is tolerated.
    """
    for norm in observation.norms:
        mean_C, variance_C = norm.running_mean, norm.running_variance
        if mean_C is None or variance_C is None:
            continue
        bad_C = ~mean_C.isfinite() | ~variance_C.isfinite() | (variance_C < 0)
        if bool(bad_C.any()):
            count = int(bad_C.sum())
            yield Finding(
                "non-finite-statistics",
                "error",
                norm.address,
                (Evidence("channels", count, "channels", "NaN, infinite, or negative variance"),),
                f"{count} of {norm.channels} channels have running statistics that aren't possible",
                "find the batch that held NaN or overflowed; then " + estimate_anew(norm),
                "a variance is finite and not negative",
                effect=float(count),
            )


def _stale_finding(observation: Observation, norm: NormCall, found: Residuals, num_misled: int) -> Finding:
    stale_C = found.stale
    mean, mean_error = _worst(found.mean, found.mean_error, stale_C)
    variance, variance_error = _worst(found.variance, found.variance_error, stale_C)
    count = int(stale_C.sum())
    return Finding(
        "stale-statistics",
        severity_of(observation, found),
        norm.address,
        (
            Evidence(
                "mean residual",
                mean,
                "σ",
                "(μ − running mean) / √(running variance + ε), worst stale channel",
            ),
            Evidence("its standard error", mean_error, "σ", "between images, and of the running average"),
            Evidence("variance residual", variance, "1", "log(σ² / running variance), worst stale channel"),
            Evidence("its standard error", variance_error, "1", "between images, and of the running average"),
            Evidence("stale channels", count, "channels", "beyond tolerance and five standard errors"),
            Evidence("layers misled", num_misled, "layers", "off at test time, right on batch statistics"),
        ),
        f"the running statistics of {count} of {norm.channels} channels aren't those of the inputs over "
        f"{found.num_images} images: means off by up to {abs(mean):.2g} σ (tolerance {MEAN_TOLERANCE:.2g}), "
        f"log variances by up to {abs(variance):.2g} (tolerance {VARIANCE_TOLERANCE:.2g})"
        + ("; with momentum 0 they never follow (statistics-never-move)" if never_moves(norm) else ""),
        estimate_anew(norm),
        _RETHINKING
        + "; Huang et al., Delving into the Estimation Shift of Batch Normalization, arXiv 2203.10778",
        effect=found.size,
    )


def _too_few(observation: Observation) -> Iterator[Unchecked]:
    """Say that so few images could hardly have shown anything."""
    judged = [
        norm.population.num_images
        for norm in observation.norms
        if not norm.frozen and norm.population is not None and norm.running_mean is not None
    ]
    if judged and max(judged) < _FEWEST_IMAGES:
        images = "1 image shows" if max(judged) == 1 else f"{max(judged)} images show"
        yield Unchecked(
            "stale-statistics",
            f"{images} nothing surely: give at least {_FEWEST_IMAGES}, better {ENOUGH_IMAGES}",
        )


def _worst(value_C: torch.Tensor, error_C: torch.Tensor, among_C: torch.Tensor) -> tuple[float, float]:
    values, errors = value_C[among_C], error_C[among_C]
    index = int(values.abs().argmax())
    return float(values[index]), float(errors[index])

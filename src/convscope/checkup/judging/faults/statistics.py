"""Faults of the running statistics: wrong, too young, not numbers, and what they cost at test time."""

from collections.abc import Iterator

import torch

from convscope.checkup.judging.age import starting_share, starting_weight, without_start
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.misled import if_stale, stale_calls, to_blame
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE, Residuals, residuals
from convscope.checkup.observed import NormCall, Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding, Severity

_ESTIMATE_ANEW = (
    "estimate them anew: cs.norm.recalibrate(model, loader) with shuffled training batches, which reports "
    "what is left; then check again"
)
_GAP_SHARE, _GAP = 0.1, 0.05  # of the loss, and in its own unit: what a gap may be without a word
_STARTING_WEIGHT = 0.01  # above which the statistics' starting values still count
_FEWEST_IMAGES = 16
_CHANNELS_PER_RARE = 100  # of which one may be off by rare images
# How far a layer's middle channel may be from the starting values 0 and 1 (a logarithm) and count as there.
_NEAR_ZERO, _NEAR_ONE = 0.25, 0.4
_RETHINKING = "Wu and Johnson, Rethinking 'Batch' in BatchNorm, arXiv 2105.07576, section 3"


@fault("train-eval-gap")
def train_eval_gap(observation: Observation) -> Iterator[Finding | Unchecked]:
    """The loss at test time is above that with batch statistics, by more than chance, a tenth and 0.05.

    Effect: the gap over the larger of a tenth of the loss and 0.05.
    """
    gap = observation.gap
    if gap is None:
        return
    if gap.error is None:
        yield Unchecked("train-eval-gap", "one batch with a mean loss leaves no standard error; give several")
        return
    if gap.difference - 4 * gap.error <= max(_GAP_SHARE * gap.batch_loss, _GAP):
        return
    yield Finding(
        "train-eval-gap",
        "error",
        "self",
        (
            Evidence(
                "gap", gap.difference, "loss", "evaluation minus batch statistics, same batches, no dropout"
            ),
            Evidence("standard error of the gap", gap.error, "loss", "paired"),
            Evidence("loss in evaluation mode", gap.eval_loss, "loss"),
            Evidence("loss with batch statistics", gap.batch_loss, "loss"),
        ),
        f"the loss is {gap.difference:.3g} ± {gap.error:.1g} higher in evaluation mode than with batch "
        f"statistics on the same batches ({gap.eval_loss:.3g} against {gap.batch_loss:.3g}); "
        + _where(observation, gap.difference),
        _ESTIMATE_ANEW,
        _RETHINKING,
        effect=gap.difference / max(_GAP_SHARE * gap.batch_loss, _GAP),
    )


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
def stale_statistics(observation: Observation) -> Iterator[Finding]:
    """Running statistics beside those of the layer's inputs; only layers that are wrong themselves.

    A layer that is off at test time but right while the layers before it use batch statistics is misled, not
    stale. If all are, the first one is named. A layer that would be right without its starting values is
    young (the next fault).

    Effect: the largest residual of a stale channel, in units of its tolerance.
    """
    off = [(norm, found, own) for norm, found, own in stale_calls(observation) if found]
    if not off:
        return
    own = [(norm, own) for norm, _, own in off if own] or [off[0][:2]]
    origins = [(norm, found) for norm, found in own if not _only_young(norm)]
    for norm, found in sorted(origins, key=lambda pair: -pair[1].size):
        yield _stale_finding(observation, norm, found, len(off) - len(own))


@fault("young-statistics")
def young_statistics(observation: Observation) -> Iterator[Finding]:
    """The starting values 0 and 1 are over 1 % of the averages, or make up most of what is wrong with them.

    Not if data shows the statistics to be right all the same.

    Effect: the starting values' weight over 1 %.
    """
    young = []
    for norm in observation.norms:
        weight = starting_weight(norm)
        if norm.frozen or weight is None or _shown_right(norm):
            continue
        if weight > _STARTING_WEIGHT or (_is_stale(norm) and _only_young(norm)):
            young.append((weight, norm))
    for weight, norm in sorted(young, key=lambda pair: -pair[0]):
        yield _young_finding(norm, weight)


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
                "find the batch that held NaN or overflowed; then " + _ESTIMATE_ANEW,
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
        _severity(observation, found),
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
        f"log variances by up to {abs(variance):.2g} (tolerance {VARIANCE_TOLERANCE:.2g})",
        _ESTIMATE_ANEW,
        _RETHINKING
        + "; Huang et al., Delving into the Estimation Shift of Batch Normalization, arXiv 2203.10778",
        effect=found.size,
    )


def _severity(observation: Observation, found: Residuals) -> Severity:
    """An error if it shows in the loss, or, without losses, if it is several times the tolerance.

    Advice if it doesn't, and concerns no more than one channel in a hundred: a few rare images that one side
    has seen, and the other hasn't, do that to single channels, and no sample of theirs tells how often.
    """
    gap = observation.gap
    single = int(found.stale.sum()) * _CHANNELS_PER_RARE <= len(found.stale)
    if gap is None or gap.error is None:
        return "advice" if single else "error" if found.size > 4 else "warning"
    shows = gap.difference - 2 * gap.error > 0.05 * gap.batch_loss
    return "error" if shows else "advice" if single else "warning"


def _worst(value_C: torch.Tensor, error_C: torch.Tensor, among_C: torch.Tensor) -> tuple[float, float]:
    values, errors = value_C[among_C], error_C[among_C]
    index = int(values.abs().argmax())
    return float(values[index]), float(errors[index])


def _young_finding(norm: NormCall, weight: float) -> Finding:
    share_C = starting_share(norm)
    share = 0.0 if share_C is None else float(share_C.max())
    doubt = _counter_in_doubt(norm)
    caveat = (
        "; they are far from 0 and 1, though: if the counter was reset (fine-tuning, an old checkpoint), "
        "they are older than it says, and data would tell"
    )
    return Finding(
        "young-statistics",
        "warning" if weight > _STARTING_WEIGHT and not doubt else "advice",
        norm.address,
        (
            Evidence("weight of the starting values", weight, "1", "(1 − momentum)^batches"),
            Evidence("their share of a running variance", share, "1", "largest over channels"),
            Evidence("batches tracked", norm.num_batches_tracked or 0, "batches"),
            Evidence("momentum", norm.momentum or 0.0, "1"),
        ),
        f"after {norm.num_batches_tracked} batches the starting values (mean 0, variance 1) still have a "
        f"weight of {weight:.2g} in the running averages and are up to {share:.0%} of a running variance"
        + (caveat if doubt else ""),
        ("run the check-up on data; if it confirms this, " if doubt else "") + _ESTIMATE_ANEW,
        "the weight of an exponential average's start; under 1 % after 44 batches at momentum 0.1",
        effect=weight / _STARTING_WEIGHT,
    )


def _only_young(norm: NormCall) -> bool:
    """Whether the statistics would be right without their starting values."""
    grown = without_start(norm)
    if grown is None:
        return False
    found = residuals(grown, norm.batch_population or norm.population)
    return found is not None and not bool(found.stale.any())


def _is_stale(norm: NormCall) -> bool:
    return if_stale(norm, norm.batch_population or norm.population) is not None


def _shown_right(norm: NormCall) -> bool:
    """Whether data has shown the running statistics to be right."""
    found = residuals(norm, norm.population)
    return found is not None and found.num_images >= _FEWEST_IMAGES and not bool(found.stale.any())


def _counter_in_doubt(norm: NormCall) -> bool:
    """Whether nothing but the counter speaks for youth: far from 0 and 1, and no data to show more."""
    mean_C, variance_C = norm.running_mean, norm.running_variance
    if mean_C is None or variance_C is None or not norm.num_batches_tracked:
        return False
    if norm.population is not None and norm.population.num_images >= _FEWEST_IMAGES:
        return False
    off_mean, off_variance = mean_C.abs().median(), variance_C.log().abs().median()
    return bool((off_mean > _NEAR_ZERO) | (off_variance > _NEAR_ONE))

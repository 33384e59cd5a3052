"""Running statistics that are too young: what they started from is still part of them."""

from collections.abc import Iterator

from convscope.checkup.judging.age import starting_share, starting_weight, without_start
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.misled import if_stale
from convscope.checkup.judging.remedies import estimate_anew
from convscope.checkup.judging.residuals import residuals, shown_right
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Evidence, Finding

_STARTING_WEIGHT = 0.01  # above which the statistics' starting values still count
# How far a layer's middle channel may be from the starting values 0 and 1 (a logarithm) and count as there.
_NEAR_ZERO, _NEAR_ONE = 0.25, 0.4


@fault("young-statistics")
def young_statistics(observation: Observation) -> Iterator[Finding]:
    """The starting values 0 and 1 are over 1 % of the averages, or make up most of what is wrong with them.

    Not if data show the statistics to be right all the same, beyond doubt: that none is shown to be wrong
    says little if the images are few.

    Effect: the starting values' weight over 1 %.
    """
    young = []
    for norm in observation.norms:
        weight = starting_weight(norm)
        if norm.frozen or weight is None or shown_right(norm):
            continue
        if weight > _STARTING_WEIGHT or (_is_stale(norm) and is_only_young(norm)):
            young.append((weight, norm))
    for weight, norm in sorted(young, key=lambda pair: -pair[0]):
        yield _young_finding(norm, weight)


def _young_finding(norm: NormCall, weight: float) -> Finding:
    share_C = starting_share(norm)
    share = 0.0 if share_C is None else float(share_C.max())
    doubt, data = _counter_in_doubt(norm), "data" if norm.population is None else "more data"
    caveat = (
        "; they are far from 0 and 1, though: if the counter was reset (fine-tuning, an old checkpoint), "
        f"they are older than it says, and {data} would tell"
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
        (f"run the check-up on {data}; if it confirms this, " if doubt else "") + estimate_anew(norm),
        "the weight of an exponential average's start; under 1 % after 44 batches at momentum 0.1",
        effect=weight / _STARTING_WEIGHT,
    )


def is_only_young(norm: NormCall) -> bool:
    """Return whether the statistics would be right without their starting values."""
    grown = without_start(norm)
    if grown is None:
        return False
    found = residuals(grown, norm.batch_population or norm.population)
    return found is not None and not bool(found.stale.any())


def _is_stale(norm: NormCall) -> bool:
    return if_stale(norm, norm.batch_population or norm.population) is not None


def _counter_in_doubt(norm: NormCall) -> bool:
    """Whether nothing but the counter speaks for youth: far from 0 and 1, and not shown to be wrong."""
    mean_C, variance_C = norm.running_mean, norm.running_variance
    if mean_C is None or variance_C is None or not norm.num_batches_tracked:
        return False
    if _is_stale(norm):
        return False
    off_mean, off_variance = mean_C.abs().median(), variance_C.log().abs().median()
    return bool((off_mean > _NEAR_ZERO) | (off_variance > _NEAR_ONE))

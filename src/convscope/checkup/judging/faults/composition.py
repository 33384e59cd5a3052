"""Faults of what a batch is made of: samples that aren't shuffled, and inputs of several distributions."""

from collections.abc import Iterator

from convscope.checkup.judging.calls import shift_beyond_doubt
from convscope.checkup.judging.domains import PER_DOMAIN, calls_by_path, most_different, separated
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.judging.shuffling import Sorted, sorted_by
from convscope.checkup.observed import CallShift, NormCall, Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

_SHARED = "Wu and Johnson, Rethinking 'Batch' in BatchNorm, arXiv 2105.07576, section 5 (table 5)"


@fault("sorted-batches")
def sorted_batches(observation: Observation) -> Iterator[Finding | Unchecked]:
    """Batches differ by more than shuffled ones would: sorted by class, clips of one video, P × K sampling.

    Reported once, at the first layer in which it shows. Effect: variance of batch means over twice that of
    shuffled batches.
    """
    if observation.norms and observation.num_samples and (reason := _not_comparable(observation)):
        yield Unchecked("sorted-batches", f"{reason}; give several")
        return
    found = [(norm, excess) for norm in observation.norms if (excess := sorted_by(observation, norm))]
    if found:
        yield _sorted_finding(observation, *found[0], len(found) - 1)


@fault("shared-over-domains")
def shared_over_domains(observation: Observation) -> Iterator[Finding]:
    """One batch norm is called on inputs of different distributions, by turns, and averages over them.

    Between the calls of one forward pass, or of one step of a watched training loop. In training each call is
    normalised by its own statistics; at test time all of them by a mixture.
    """
    found = [
        _between_calls(calls, separated(observation, path))
        for path, calls in calls_by_path(observation).items()
    ]
    yield from sorted((finding for finding in found if finding), key=lambda finding: -finding.effect)
    named = {calls[0].path for calls, finding in zip(calls_by_path(observation).values(), found) if finding}
    for shift in observation.run.call_shifts if observation.run else ():
        effect = shift_beyond_doubt(shift)
        if effect > 1 and shift.path not in named:
            yield _in_run(shift, effect)


def _not_comparable(observation: Observation) -> str:
    """Why nothing tells how batches differ; empty if something does."""
    if observation.num_batches < 2:
        return "one batch doesn't show how batches differ"
    known = [norm.population for norm in observation.norms if norm.population is not None]
    if known and all(population.num_compared < 2 for population in known):
        return "there aren't two batches of one size that differ"
    return ""


def _sorted_finding(observation: Observation, norm: NormCall, found: Sorted, num_others: int) -> Finding:
    population, loader = norm.population, observation.loader
    assert population is not None
    said = "the loader doesn't shuffle; " if loader is not None and not loader.shuffles else ""
    others = f", as in {num_others} further layers" if num_others else ""
    return Finding(
        "sorted-batches",
        "warning",
        norm.address,
        (
            Evidence(
                "variance of batch means over that of shuffled batches",
                found.ratio,
                "1",
                "median of channels",
            ),
            Evidence("its chance for shuffled batches", found.chance, "1", "F test between batches, bound"),
            Evidence("noise of the batch mean", found.noise, "σ", "between batches, rms over channels"),
            Evidence("that of shuffled batches", found.shuffled_noise, "σ", "from single images"),
            Evidence("batches", population.num_batches, "batches"),
            Evidence("layers", num_others + 1, "layers", "in which it shows"),
        ),
        f"batch means vary {found.ratio:.1f} times as much as those of shuffled batches would, by "
        f"{found.noise:.2g} σ instead of {found.shuffled_noise:.2g}{others}: {said}if these are the batches "
        "that it trains on, each is normalised by what its samples have in common, unlike at test time",
        "shuffle=True in the loader; if batches must be as they are, cs.norm.convert(model, 'renorm')",
        "Ioffe, Batch Renormalization, arXiv 1702.03275, section 4.3 (batches of few classes)",
        effect=found.size,
    )


def _between_calls(calls: list[NormCall], remedy: str) -> Finding | None:
    """The two calls of a module whose inputs differ most, if beyond tolerance and doubt."""
    shift, error, log_variance, effect, one, other = most_different(calls)
    if effect <= 1:
        return None
    return Finding(
        "shared-over-domains",
        "warning",
        other.address,
        (
            Evidence("shift between two calls", shift, "σ", "largest difference of a channel's means"),
            Evidence("its standard error", error, "σ", "between images"),
            Evidence("difference of log variances", log_variance, "1", "largest of the channels"),
            Evidence("calls", len(calls), "calls", "in one forward pass"),
        ),
        f"called {len(calls)} times in a forward pass, on inputs that differ: between {one.address} and "
        f"{other.address} means by up to {shift:.2g} σ (tolerance {MEAN_TOLERANCE:.2g}), log variances by up "
        f"to {log_variance:.2g} (tolerance {VARIANCE_TOLERANCE:.2g}); the running statistics are a mixture, "
        "which fits neither at test time",
        remedy,
        _SHARED,
        effect=effect,
    )


def _in_run(shift: CallShift, effect: float) -> Finding:
    one, other = shift.between
    return Finding(
        "shared-over-domains",
        "warning",
        shift.path,
        (
            Evidence("shift between two calls", shift.shift, "σ", "root mean square over channels"),
            Evidence("its standard error", shift.error, "σ", "over the sampled steps"),
            Evidence(
                "difference of log variances", shift.log_variance, "1", "root mean square over channels"
            ),
            Evidence("calls", shift.calls, "calls", "in one optimizer step"),
            Evidence("sampled steps", shift.num_steps, "steps"),
        ),
        f"called {shift.calls} times in a training step, on inputs that differ: between calls {one} and "
        f"{other} means by {shift.shift:.2g} σ (tolerance {MEAN_TOLERANCE:.2g}), log variances by "
        f"{shift.log_variance:.2g} (tolerance {VARIANCE_TOLERANCE:.2g}); the running statistics are a "
        "mixture, which fits neither at test time",
        f"{PER_DOMAIN}; where one call reads what another has made, a batch norm for each call",
        _SHARED,
        effect=effect,
    )

"""Faults between the processes of a distributed run: statistics that are each process's own."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.batch_size import FEWEST_VALUES, is_synchronised
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Observation, ProcessFacts
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding


@fault("unsynchronised-statistics")
def unsynchronised_statistics(observation: Observation) -> Iterator[Finding]:
    """Each process normalises by a few values of its own, though all of them together have enough.

    Effect: 16 over the effective values that a process has.
    """
    facts = observation.processes
    found = []
    for norm in observation.norms if facts is not None else ():
        effective = None if norm.population is None else norm.population.effective_values
        if facts is None or norm.frozen or is_synchronised(norm) or effective is None:
            continue
        if effective < FEWEST_VALUES <= effective * facts.count:
            found.append((effective, norm))
    for effective, norm in sorted(found, key=lambda entry: entry[0]):
        assert facts is not None
        yield _unsynchronised(effective, norm, facts)


@fault("processes-disagree")
def processes_disagree(observation: Observation) -> Iterator[Finding | Unchecked]:
    """Running statistics aren't the same in all processes, so neither is what they compute at test time.

    DistributedDataParallel hands out those of the first process before each step; by what the others' move
    in one step they may differ. They mustn't by more than a running statistic may be off, or at all where
    nothing is handed out.
    """
    facts = observation.processes
    if facts is None:
        return
    if not facts.compared:
        yield Unchecked("processes-disagree", "not every process runs the check-up")
        return
    found = []
    for path, (shift, log_variance) in facts.disagreements.items():
        effect = max(shift / MEAN_TOLERANCE, log_variance / VARIANCE_TOLERANCE)
        if effect > 1 or facts.broadcast_buffers is False:
            found.append((effect, path, shift, log_variance))
    for effect, path, shift, log_variance in sorted(found, reverse=True):
        yield _disagreeing(path, (shift, log_variance), max(1.0, effect), facts)


def _unsynchronised(effective: float, norm: NormCall, facts: ProcessFacts) -> Finding:
    return Finding(
        "unsynchronised-statistics",
        "warning",
        norm.address,
        (
            Evidence("effective values per channel", effective, "values", "in this process"),
            Evidence("of all processes", effective * facts.count, "values", "if they were pooled"),
            Evidence("processes", facts.count, "processes"),
            Evidence("noise of the batch mean", effective**-0.5, "σ", "√(1 / effective values)"),
        ),
        f"each of {facts.count} processes normalises by its own batch, which is worth {effective:.1f} "
        f"independent values per channel here, so that its mean is off by {effective**-0.5:.0%} of a "
        f"standard deviation; all together have {effective * facts.count:.0f}",
        "cs.norm.convert(model, 'sync') before wrapping it in DistributedDataParallel",
        "torch.nn.parallel.DistributedDataParallel documentation: buffers are broadcast, not pooled",
        effect=FEWEST_VALUES / effective,
    )


def _disagreeing(path: str, differences: tuple[float, float], effect: float, facts: ProcessFacts) -> Finding:
    shift, log_variance = differences
    apart = facts.broadcast_buffers is False
    return Finding(
        "processes-disagree",
        "warning",
        path,
        (
            Evidence("difference of running means", shift, "σ", "between two processes, worst channel"),
            Evidence("difference of log running variances", log_variance, "1", "the same"),
            Evidence("processes", facts.count, "processes"),
        ),
        f"the running statistics of {facts.count} processes differ: means by up to {shift:.2g} σ, log "
        f"variances by up to {log_variance:.2g}"
        + ("; without forward_sync_buffers nothing makes them alike" if apart else "")
        + ". Each process evaluates another network, and a checkpoint has the statistics of one",
        "cs.norm.recalibrate(model, loader) in all processes, which pools them"
        + (
            "; forward_sync_buffers=True (broadcast_buffers=True before PyTorch 2.13), or "
            "cs.norm.convert(model, 'sync')"
            if apart
            else ""
        ),
        "pytorch issues 13711, 30718",
        effect=effect,
    )

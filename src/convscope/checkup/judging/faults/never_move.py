"""Running statistics that training never touches, though it normalises by the batch."""

from collections.abc import Iterator

from convscope.checkup.judging.calls import modules
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.remedies import freeze, never_moves
from convscope.checkup.judging.residuals import shown_right
from convscope.checkup.judging.staleness import severity_of, stale_origins
from convscope.checkup.judging.start import is_at_start
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Evidence, Finding

_SOURCE = "torch.nn.BatchNorm2d documentation: training mode normalises by the batch"


@fault("statistics-never-move")
def statistics_never_move(observation: Observation) -> Iterator[Finding]:
    """Normalised by the batch in training, while the statistics for test time stand still.

    That is what momentum 0 does, and ``track_running_stats=False`` set on a layer that has statistics; the
    latter only if it is in training mode, for in evaluation mode it does what it should. It is an error where
    the statistics are stale, or momentum 0 holds them at the 0 and 1 that they started from.

    Effect: 1, or that of the stale statistics which it is the cause of, so that it comes before them.
    """
    stale = {
        norm.path: found.size
        for norm, found in stale_origins(observation)[0]
        if severity_of(observation, found) != "advice"
    }
    for norm in modules(observation):
        if norm.frozen or norm.running_mean is None:
            continue
        if never_moves(norm):
            evidence = Evidence("momentum", 0.0, "1", "weight of the new batch")
            yield _finding(norm, "momentum 0", evidence, stale.get(norm.path))
        elif not norm.tracks and norm.training:
            evidence = Evidence("track_running_stats", 0, "1", "with running statistics that are there")
            yield _finding(norm, "track_running_stats=False", evidence, stale.get(norm.path))


def _finding(norm: NormCall, setting: str, evidence: Evidence, size: float | None) -> Finding:
    at_start = never_moves(norm) and is_at_start(norm) and not shown_right(norm)
    follows = "" if size is None else ", and they are stale already (stale-statistics)"
    if at_start and size is None:
        follows = ", 0 and 1 however long it trains"
    change = "momentum to 0.1" if never_moves(norm) else "track_running_stats to True"
    moving = f"set its {change}, then cs.norm.recalibrate(model, loader)"
    remedy = f"{freeze(norm)} to freeze it; or {moving}"
    if size is not None:
        remedy = f"{moving}; if it is to be frozen, {freeze(norm)} after that"
    return Finding(
        "statistics-never-move",
        "error" if size is not None or at_start else "warning",
        norm.address,
        (evidence,),
        f"with {setting} training uses batch statistics and test time old ones{follows}: this doesn't freeze",
        remedy,
        _SOURCE,
        effect=max(1.0, size or 0.0),
    )

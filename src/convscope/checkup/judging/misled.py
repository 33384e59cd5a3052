"""Which layers are wrong themselves, and which are only misled by those before them.

The running statistics of a misled layer are off at test time, but right while the layers before it normalise
by the batch as in training: they were right, and its inputs aren't. Mending it would be treating a symptom.
"""

from collections.abc import Iterator
from dataclasses import replace

from convscope.checkup.judging.domains import calls_by_path, mixed_domains, mixtures
from convscope.checkup.judging.residuals import Residuals, residuals
from convscope.checkup.observed import LayerGap, NormCall, Observation, Population


def stale_calls(
    observation: Observation,
) -> Iterator[tuple[NormCall, Residuals | None, Residuals | None]]:
    """Yield every training batch norm with its residuals at test time, if stale, and its own residuals.

    A module whose calls differ comes once: its statistics are wrong only if they aren't the calls' mixture.
    """
    several, mixed = calls_by_path(observation), mixed_domains(observation)
    for norm in observation.norms:
        if norm.frozen:
            continue
        if norm.training is None or norm.path not in mixed:
            yield norm, if_stale(norm, norm.population), if_stale(norm, norm.batch_population)
        elif norm is several[norm.path][0]:
            kinds = mixtures(several[norm.path])
            at_test = [if_stale(each, each.population) for each in kinds]
            own = [if_stale(each, each.batch_population) for each in kinds]
            yield norm, _if_all(at_test), _if_all(own)


def _if_all(found: list[Residuals | None]) -> Residuals | None:
    """The smallest residuals, if the statistics are stale beside every kind of mixture."""
    stale = [each for each in found if each is not None]
    return min(stale, key=lambda each: each.size) if len(stale) == len(found) else None


def if_stale(norm: NormCall, population: Population | None) -> Residuals | None:
    """Return a call's residuals against a population, if it is stale beside it."""
    found = residuals(norm, population)
    return found if found is not None and found.size > 0 else None


def misled_paths(observation: Observation) -> frozenset[str]:
    """Return the layers that are misled, none of whose calls is wrong itself.

    If no layer is wrong itself, the first that is off isn't taken for misled.
    """
    off = [(norm.path, own) for norm, found, own in stale_calls(observation) if found]
    wrong = {path for path, own in off if own} or {path for path, _ in off[:1]}
    return frozenset(path for path, _ in off if path not in wrong)


def by_blame(observation: Observation) -> tuple[LayerGap, ...]:
    """Return the shares of the gap as attribution ranks them, but those to blame before all others."""
    misled = misled_paths(observation)
    shares = (replace(share, misled=share.path in misled) for share in observation.attribution)
    return tuple(sorted(shares, key=lambda share: share.misled or not share.is_significant))


def to_blame(observation: Observation) -> LayerGap | None:
    """Return the layer with the largest share of the gap, beyond doubt and not misled; None if none is."""
    first = next(iter(by_blame(observation)), None)
    return first if first is not None and first.is_significant and not first.misled else None

"""The gap layer by layer: one batch norm at a time uses batch statistics, the others running ones.

What goes of the gap when a single layer is switched is what its running statistics cost by themselves. The
layers behind a wrong one are misled: each of them, switched alone, mends a part of what it is given, so that
shares overlap and don't add up to the gap. The batch norm right behind the wrong one mends nearly as much,
and by chance more. So a later layer comes before an earlier one only if its share is larger by over two
standard errors of the paired difference, and by over a tenth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.checkup.measuring.batches import KeptBatch
from convscope.checkup.measuring.criterion import Criterion
from convscope.checkup.measuring.gap_meter import GapMeter
from convscope.checkup.observed import Gap, LayerGap, NormCall
from convscope.checkup.plan import CheckupPlan, Progress
from convscope.checkup.unchecked import Unchecked
from convscope.probe import Probe, Visit, probing

_LARGER, _MUCH = 2.0, 0.1  # standard errors, and the part of a share, by which a later one must be larger


def attribution(
    model: nn.Module,
    batches: list[KeptBatch],
    norms: tuple[NormCall, ...],
    criterion: Criterion,
    plan: CheckupPlan,
) -> tuple[tuple[LayerGap, ...], tuple[Unchecked, ...]]:
    """Return how much of the gap each batch norm is answerable for, largest first; one pass a layer.

    Everything runs in evaluation mode, so that no dropout draws and no buffer moves. Left out are layers that
    keep to their running statistics in training too, and those that are given one value per channel.

    Args:
        model: comes back as it was.
        batches: with labels and their losses in evaluation mode, which aren't computed again.
        norms: the calls that were met.
        criterion: how losses are taken.
        plan: tells of progress.

    Returns:
        A row per layer, and the layers whose loss with batch statistics isn't a number.
    """
    layers, pairs = _switchable(norms), _Pairs(batches, criterion)
    shares, unchecked = [], []
    with probing(model) as probe:
        switch = _Switch(probe)
        for done, (path, calls) in enumerate(layers.items(), start=1):
            switch.on = {call.operator for call in calls}
            losses = list(_losses(probe, batches, criterion))
            if all(bool(each.isfinite().all()) for each in losses):
                shares.append(_share(calls[0], losses, pairs))
            else:
                unchecked.append(
                    Unchecked(path, "the loss with this layer on batch statistics isn't a number")
                )
            if plan.progress is not None:
                plan.progress(Progress("attributing the gap to layers", done, len(layers)))
    return tuple(share.row for share in _ranked(shares, pairs)), tuple(unchecked)


@dataclass(frozen=True, eq=False)
class _Share:
    """One layer's share of the gap, and the losses of all batches with it switched."""

    row: LayerGap
    losses: list[Tensor]


def _share(norm: NormCall, losses: list[Tensor], pairs: "_Pairs") -> _Share:
    gap = pairs.gap(pairs.before, losses)
    return _Share(LayerGap(norm.address, norm.path, gap.difference, gap.error, doubt=gap.doubt), losses)


def _ranked(shares: list[_Share], pairs: "_Pairs") -> list[_Share]:
    """The largest share first; of those that don't differ beyond doubt, the first in the network."""
    rest, ranked = list(shares), []
    while rest:
        most = max(rest, key=lambda share: share.row.difference)
        first = next(share for share in rest if share is most or not _is_larger(most, share, pairs))
        rest.remove(first)
        ranked.append(first)
    return ranked


def _is_larger(one: _Share, other: _Share, pairs: "_Pairs") -> bool:
    """Whether switching the one layer leaves a smaller loss than the other, beyond doubt and by a tenth."""
    found = pairs.gap(other.losses, one.losses)
    return found.difference > max(_LARGER * (found.error or 0.0), _MUCH * abs(one.row.difference))


class _Pairs:
    """Compares losses of the kept batches, by what they weigh.

    Attributes:
        before: the batches' losses in evaluation mode.
    """

    def __init__(self, batches: list[KeptBatch], criterion: Criterion) -> None:
        self.before = [kept.loss for kept in batches]
        self._samples = [kept.batch.num_samples for kept in batches]
        self._weights = [criterion.weights(kept.loss, kept.batch) for kept in batches]

    def gap(self, before: list[Tensor], after: list[Tensor]) -> Gap:
        """Return the mean difference of two losses of every batch, and its error."""
        meter = GapMeter()
        for each in zip(before, after, self._weights, self._samples, strict=True):
            meter.add(*each)
        gap = meter.gap()
        assert gap is not None
        return gap


class _Switch:
    """Normalises the calls at ``on`` by batch statistics, where that is possible, and leaves the others."""

    def __init__(self, probe: Probe) -> None:
        self.on: set[str | None] = set()
        probe.around("batch_norm", self._run)

    def _run(self, visit: Visit) -> Any:
        x: Tensor = visit.args[0]
        if str(visit.site.address) not in self.on or x.numel() <= x.shape[1]:
            return visit.run()
        gamma, beta, eps = visit.args[1], visit.args[2], float(visit.args[7])
        # As in training, but no running statistics are given, so that none can move.
        return (F.batch_norm(x, None, None, gamma, beta, True, 0.0, eps), *visit.run()[1:])


def _losses(probe: Probe, batches: list[KeptBatch], criterion: Criterion) -> Iterator[Tensor]:
    for kept in batches:
        with torch.no_grad():
            outputs = kept.batch.run(probe.model)
        with probe.paused():
            loss = criterion.of(outputs, kept.batch)
        yield loss


def _switchable(norms: tuple[NormCall, ...]) -> dict[str, list[NormCall]]:
    """The calls to switch together, by module path; those of a batch norm as a function one by one."""
    layers: dict[str, list[NormCall]] = {}
    for norm in norms:
        single = norm.population is None or norm.population.batch_values == 1
        if not norm.frozen and not single:
            layers.setdefault(norm.path if norm.training is not None else norm.address, []).append(norm)
    return layers

"""The two passes over every batch, both in evaluation mode: no dropout, and no buffer moves.

In the first the network runs as at test time. In the second the batch norms that train are replaced, at
operator level, by their training behaviour, so that each layer's inputs are as in training: a layer whose
running statistics are right is right there, whatever the layers before it do at test time, and a wrong one
can be told from those that it misleads.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.chance import loss_by_chance
from convscope.checkup.measuring.coupling import loss_coupling
from convscope.checkup.measuring.criterion import Criterion
from convscope.checkup.measuring.describe import Roster
from convscope.checkup.measuring.flow import feeds_only_relus
from convscope.checkup.measuring.gap_meter import GapMeter
from convscope.checkup.measuring.inputs import Inputs
from convscope.checkup.measuring.padding import Content, content_of
from convscope.checkup.measuring.population import Moments, Pool, spread_of_images
from convscope.checkup.observed import Gap, NormCall
from convscope.checkup.unchecked import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.norm.layers.batch import BatchLayer
from convscope.probe import Probe, Visit
from convscope.tape import OperatorCall, Tape
from convscope.tape.batch_norms import normalises_samples

_JUDGED = "statistics, gap and batches"


@dataclass
class _Seen:
    """A batch norm call that was met, and the pools of both passes."""

    norm: NormCall
    in_eval: Pool = field(default_factory=Pool)
    in_batch: Pool | None = None
    inputs: Inputs = field(default_factory=Inputs)


class Passes:
    """Runs batches under a probe, in evaluation mode, and gathers what they show.

    Attributes:
        by_batch: by operator address, whether a functional batch norm call was seen to use batch statistics
            in training mode; it is taken to if it isn't in here.
        num_samples, num_batches: what was run.
        watched: batch norm calls whose images are to be kept apart, by operator address.
        spreads: of those, the images' spread with batch statistics and without dropout, (N, C), of the
            first batch; see :func:`~convscope.checkup.measuring.population.spread_of_images`.
        loss_coupling: see :func:`~convscope.checkup.measuring.coupling.loss_coupling`; of the first batch.
    """

    def __init__(self, probe: Probe, roster: Roster, criterion: Criterion, tape: Tape | None) -> None:
        self.by_batch: dict[str, bool] = {}
        self.watched: frozenset[str] = frozenset()
        self.spreads: dict[str, Tensor] = {}
        self.num_samples = self.num_batches = 0
        self.loss_coupling: float | None = None
        self._reasons: Counter[str] = Counter()
        self._probe, self._model = probe, probe.model
        self._roster, self._criterion, self._tape = roster, criterion, tape
        self._attribution = probe.attribution
        self._rule: Callable[[Visit], Any] = self._pool
        probe.around("batch_norm", lambda visit: self._rule(visit))
        self._seen: dict[str, _Seen] = {}
        self._meter = GapMeter()
        self._in_nats = True
        self._output = ""
        self._by_chance: float | None = None
        self._batch_size = 0
        self._content: Content | None = None
        self._fails_by_batch = ""

    @property
    def has_norms(self) -> bool:
        """Whether any batch norm has been met."""
        return bool(self._seen)

    def as_at_test_time(self, batch: Batch) -> Any:
        """Run a batch with running statistics and return the outputs.

        Raises:
            ConvscopeError: the model fails on this batch; it names the module.
        """
        self.num_samples += batch.num_samples
        self.num_batches += 1
        return self._forward(batch, self._pool)

    def as_in_training(self, batch: Batch, outputs: Any) -> Tensor | None:
        """Run the same batch with batch statistics, and compare the losses.

        Returns:
            The loss in evaluation mode, (N,) or one number, if both losses are finite; None without them.
        """
        if self._fails_by_batch or not self._trains_any:
            return None
        self._content = content_of(batch)
        try:
            by_batch = self._forward(batch, self._by_batch)
        except ConvscopeError as error:
            self._give_up_by_batch(error)
            return None
        with self._probe.paused():
            return self._compared(batch, outputs, by_batch)

    def _compared(self, batch: Batch, outputs: Any, by_batch: Any) -> Tensor | None:
        """Take in both losses of a batch; the one in evaluation mode, if both are finite."""
        criterion = self._criterion
        if lacking := criterion.lacking(outputs, batch):
            self._reasons[lacking] += 1
            return None
        before, after = (criterion.of(each, batch) for each in (outputs, by_batch))
        weights = criterion.weights(before, batch)
        if self.loss_coupling is None:
            self.loss_coupling = loss_coupling(criterion.loss, by_batch, batch.labels)
        if not bool(before.isfinite().all() and after.isfinite().all()):
            self._reasons["a loss that is NaN or infinite"] += 1
            return None
        if not self._meter.add(before, after, weights, batch.num_samples):
            self._reasons["all labels are -100, which the loss ignores"] += 1
            return None
        self._output = self._output or criterion.taken(outputs, batch)
        self._in_nats &= criterion.is_in_nats(batch.labels)
        if not self._in_nats and self._by_chance is None:
            self._by_chance = loss_by_chance(criterion, by_batch, batch.labels)
        return before

    def norms(self) -> tuple[NormCall, ...]:
        """Return the batch norm calls that were met, in order, with their statistics."""
        return tuple(self._norm(address, seen) for address, seen in self._seen.items())

    def _norm(self, address: str, seen: _Seen) -> NormCall:
        by_batch = seen.in_batch.population() if seen.in_batch else None
        return replace(
            seen.norm,
            frozen=not self._trains(address),
            feeds_relu=None if self._tape is None else feeds_only_relus(self._tape, address),
            population=seen.in_eval.population(),
            batch_population=by_batch,
            inputs=None if by_batch is None else seen.inputs.facts(by_batch, seen.norm.eps),
        )

    def gap(self) -> Gap | None:
        """Return the gap over all batches with a finite loss, or None if there is none."""
        gap = self._meter.gap()
        if gap is None:
            return None
        return replace(gap, in_nats=self._in_nats, by_chance=self._by_chance, output=self._output)

    @property
    def unchecked(self) -> tuple[Unchecked, ...]:
        """What could not be measured, and why; whatever there is no gap of has its reason here."""
        if self._fails_by_batch:
            return (Unchecked("batch statistics and gap", self._fails_by_batch),)
        if self.has_norms and not self._trains_any:
            num_layers = len({seen.norm.path for seen in self._seen.values()})
            which = f"all {num_layers} batch norms are" if num_layers > 1 else "the only batch norm is"
            return (Unchecked(_JUDGED, f"{which} frozen: {_JUDGED} weren't judged"),)
        return tuple(self._notes_on_gap())

    def _notes_on_gap(self) -> Iterator[Unchecked]:
        for reason, count in self._reasons.items():
            part = f"{count} of {self.num_batches} batches left out: " if self.num_batches > 1 else ""
            used = self._meter.num_samples
            over = f"; the gap is over {used} of {self.num_samples} samples" if used else ""
            yield Unchecked("gap", f"{part}{reason}{over}")
        if self._meter.num_batches and self._criterion.is_sum:
            yield Unchecked("unit of the gap", "the loss is a sum over samples: it was taken per sample")
        if self._meter.num_batches == 1:
            told = "it tells of samples only" if self._meter.by_samples else "there is none"
            yield Unchecked(
                "standard error of the gap",
                f"one batch doesn't show how batches differ: {told}; give several",
            )

    @property
    def _trains_any(self) -> bool:
        return any(self._trains(address) for address in self._seen)

    def _forward(self, batch: Batch, rule: Callable[[Visit], Any]) -> Any:
        self._batch_size, self._rule = batch.num_samples, rule
        try:
            with torch.no_grad():
                return batch.run(self._model)
        except ConvscopeError:
            raise
        except Exception as error:
            raise _fails(self._attribution.failed_in, batch, error) from error

    def _give_up_by_batch(self, error: ConvscopeError) -> None:
        """The network runs at test time only, such as with ε = 0: what was pooled so far is incomplete."""
        self._fails_by_batch = f"with batch statistics {error.given}"
        self._meter = GapMeter()
        for seen in self._seen.values():
            seen.in_batch = None

    def _pool(self, visit: Visit) -> Any:
        address, result = str(visit.site.address), visit.run()
        if address not in self._seen and self._is_batch_norm(visit):
            self._seen[address] = _Seen(
                self._roster.describe(
                    visit.site.address, address, visit.args[0].shape[1],
                    float(visit.args[7]), float(visit.args[6]), visit.args[1:5],
                )
            )  # fmt: skip
        if address in self._seen:
            self._seen[address].in_eval.add(visit.args[0], result[0])
        return result

    def _by_batch(self, visit: Visit) -> Any:
        address, result = str(visit.site.address), visit.run()
        if address not in self._seen:
            return result
        seen = self._seen[address]
        seen.in_batch = seen.in_batch or Pool()
        x: Tensor = visit.args[0]
        if address in self.watched and self.num_batches == 1:
            self.spreads[address] = spread_of_images(x)
        moments = seen.in_batch.add(x, result[0])
        seen.inputs.add(x, moments, None if self._content is None else self._content.mask(tuple(x.shape)))
        if not self._trains(address) or x.numel() <= x.shape[1]:
            return result
        return (self._normalised(visit, seen, moments), *result[1:])

    def _normalised(self, visit: Visit, seen: _Seen, moments: Moments) -> Tensor:
        """Return the call's result with batch statistics, by the operator that runs in training."""
        x, gamma, beta, eps = visit.args[0], visit.args[1], visit.args[2], float(visit.args[7])
        # Convscope's own layers and synchronised ones have operators of their own.
        elsewhere = isinstance(self._roster.norms.get(seen.norm.path), BatchLayer | nn.SyncBatchNorm)
        if elsewhere or x.device.type != "cpu" or eps == 0:  # which PyTorch refuses in training
            return F.batch_norm(x, None, None, gamma, beta, True, 0.0, eps)
        output, _, scale_C = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
        seen.inputs.note_variance(scale_C.double().square().reciprocal(), moments, eps)
        return output

    def _is_batch_norm(self, visit: Visit) -> bool:
        """Instance norm runs the same operator, on one image with the channels of all, and so do others."""
        path, x = visit.site.address.path, visit.args[0]
        if path in self._roster.norms:
            return True
        if self._roster.is_instance_norm(path) or (x.shape[0] == 1 < self._batch_size):
            return False
        call = None if self._tape is None else self._tape.find(visit.site.address)
        if self._tape is None or not isinstance(call, OperatorCall):
            return not self._roster.holds(x)
        return normalises_samples(self._tape, call)

    def _trains(self, address: str) -> bool:
        """Whether a call uses batch statistics in training: by its module's mode, or as it was seen to."""
        norm = self._seen[address].norm
        return self.by_batch.get(address, True) if norm.training is None else not norm.frozen


def _fails(address: str, batch: Batch, error: Exception) -> ConvscopeError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConvscopeError(
        f"the network fails in {address} on images of shape {batch.shapes} ({reason})",
        "images that the network takes: batch, channels, height, width",
        "check the data's shape and dtype",
    )

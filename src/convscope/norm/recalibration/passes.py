"""Passes over the data in evaluation mode, in which batch norms' inputs are gathered.

A batch norm normalises by what its buffers hold: its running statistics, as deployed, or, written there just
before it runs, those of the latest samples, as in training. Both are evaluation mode to the module, so that
dropout is off, nothing is exchanged between processes, and each kind of batch norm runs its one form at test
time. The probe puts all buffers back at the end.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.norm.recalibration.feeding import FedBatch, Feed
from convscope.norm.recalibration.inputs import LayerInputs
from convscope.norm.recalibration.layers import Norm, fill
from convscope.norm.recalibration.plan import Progress
from convscope.norm.recalibration.pools import Pooled, merged_pools
from convscope.norm.recalibration.processes import Processes
from convscope.probe import Probe, Visit
from convscope.probe.batches import no_batch

Statistics = dict[str, tuple[Tensor, Tensor]]
"""Mean and unbiased variance by layer."""


class Count(NamedTuple):
    """How much data a pass has seen."""

    num_batches: int
    num_samples: int


class Passes:
    """Runs data through a network under a probe and gathers its batch norms' inputs.

    Args:
        probe: on the network.
        norms: the layers.
        processes: pass together, each over data of its own.
        progress: is told after every batch.

    Attributes:
        number: passes begun so far.
        seen: how much data the first pass has seen, all processes together.
    """

    def __init__(
        self,
        probe: Probe,
        norms: tuple[Norm, ...],
        processes: Processes,
        progress: Callable[[Progress], object] | None = None,
    ) -> None:
        self.number, self.seen, self._num_placed = 0, Count(0, 0), 0
        self._probe, self._processes, self._progress = probe, processes, progress
        self._layers = {norm.path: LayerInputs(norm) for norm in norms}
        # A layer is known by the buffer it normalises with, however it is called.
        self._by_buffer = {layer.norm.mean.data_ptr(): layer for layer in self._layers.values()}
        self._rule: Callable[[LayerInputs, Tensor], None] | None = None
        probe.around("batch_norm", self._visited)

    def first(self, feed: Feed, window: int) -> tuple[dict[str, Pooled], dict[str, Pooled]]:
        """Return layers' inputs with the old statistics, and with those of the latest samples.

        Args:
            feed: the data.
            window: how many samples those are, at least.

        Returns:
            Both by layer, in the order of their first calls; layers that weren't called are missing.

        Raises:
            ConvscopeError: there is no sample, the network fails, or a layer's inputs aren't finite.
        """

        def both(batch: FedBatch) -> None:
            self.put_back()
            self.run(batch, LayerInputs.measure)
            self.run(batch, lambda layer, x: layer.normalise_by_latest(x, window))

        def work() -> tuple[Count, dict[str, Pooled], dict[str, Pooled]]:
            count = self._over(feed, "statistics of the latest samples", both)
            latest = {path: layer.by_latest.found for path, layer in self._layers.items()}
            return count, self._found(), self._in_order(latest)

        counts, deployed, by_latest = zip(*self._processes.each(work), strict=True)
        self.seen = Count(*map(sum, zip(*counts, strict=True)))
        self._check(self.seen.num_samples)
        return _merged(deployed), _merged(by_latest)

    def deployed(self, feed: Feed, statistics: Statistics, only: str | None = None) -> dict[str, Pooled]:
        """Return layers' inputs in the network with some statistics.

        Args:
            feed: the data, read once more.
            statistics: put into the layers, and left there.
            only: the one layer to look at; the network runs no further than that.

        Raises:
            ConvscopeError: as for :meth:`first`.
        """
        self.put(statistics)
        purpose = "inputs with the new statistics" if only is None else f"inputs of {only}"
        end = None if only is None else self._layers[only]

        def look(layer: LayerInputs, x: Tensor) -> None:
            if end is None or layer is end:
                layer.measure(x)
            if layer is end and layer.is_done:
                raise _Arrived

        def work() -> tuple[Count, dict[str, Pooled]]:
            count = self._over(feed, purpose, lambda batch: self.run(batch, look))
            return count, self._found()

        counts, found = zip(*self._processes.each(work), strict=True)
        self._check(sum(count.num_samples for count in counts))
        return _merged(found)

    @property
    def is_any_reused(self) -> bool:
        """Whether a layer is called several times when the network runs, on any process."""
        reused = any(layer.is_reused for layer in self._layers.values())
        return any(self._processes.each(lambda: reused))

    def put(self, statistics: Statistics) -> None:
        """Let layers normalise by some statistics; those that aren't named keep what they have."""
        for path, (mean, variance) in statistics.items():
            fill(self._layers[path].norm, mean, variance)

    def put_back(self) -> None:
        """Let layers normalise by their old statistics."""
        for layer in self._layers.values():
            layer.put_back()

    def batches(self, feed: Feed, purpose: str) -> Iterator[FedBatch]:
        """Yield the data's batches, loaded unwatched, and tell how far it is."""
        batches = iter(feed)
        num_batches = num_samples = 0
        while True:
            with self._probe.paused():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
            num_batches, num_samples = num_batches + 1, num_samples + batch.num_samples
            if self._progress is not None:
                with self._probe.paused():
                    self._progress(Progress(self.number, purpose, num_batches, feed.num_batches, num_samples))

    def run(self, batch: FedBatch, rule: Callable[[LayerInputs, Tensor], None] | None = None) -> Any:
        """Run a batch and return the outputs; ``rule`` is shown every input of a layer first.

        Raises:
            ConvscopeError: the network fails; the module is named.
        """
        self._probe.attribution.restart()
        for layer in self._layers.values():
            layer.begin_run()
        self._rule = rule
        try:
            outputs = batch.run()
        except _Arrived:
            self._probe.attribution.abandon()
            return None
        except ConvscopeError:
            raise
        except Exception as error:
            raise self._failure(batch, error) from error
        finally:
            self._rule = None
        if rule is not None:
            for layer in self._layers.values():
                layer.end_run()
        return outputs

    def _over(self, feed: Feed, purpose: str, run: Callable[[FedBatch], None]) -> Count:
        """Make one pass, from the same state of the random number generators as any other."""
        self.number += 1
        for layer in self._layers.values():
            layer.begin_pass()
        num_batches = num_samples = 0
        with preserved_rng():
            for batch in self.batches(feed, purpose):
                run(batch)
                num_batches, num_samples = num_batches + 1, num_samples + batch.num_samples
        return Count(num_batches, num_samples)

    def _visited(self, visit: Visit) -> Any:
        x, mean = visit.args[0], visit.args[3]
        layer = self._by_buffer.get(mean.data_ptr()) if isinstance(mean, Tensor) else None
        if layer is not None and self._rule is not None and x.numel():
            if layer.place == math.inf:
                layer.place = self._num_placed
                self._num_placed += 1
            layer.count()
            self._rule(layer, x)
        return visit.run()

    def _found(self) -> dict[str, Pooled]:
        return self._in_order({path: layer.deployed.found for path, layer in self._layers.items()})

    def _in_order(self, found: dict[str, Pooled | None]) -> dict[str, Pooled]:
        """What was found, in the CPU's memory, by the order of first calls."""
        order = sorted(found, key=lambda path: self._layers[path].place)
        return {path: pooled.on_cpu() for path in order if (pooled := found[path]) is not None}

    def _check(self, num_samples: int) -> None:
        if num_samples:
            return
        if self.number == 1:
            raise no_batch()
        raise ConvscopeError(
            f"data without a single batch when read for the {self.number}. time",
            "data that can be read several times",
            "make a list of it",
        )

    def _failure(self, batch: FedBatch, error: Exception) -> ConvscopeError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ConvscopeError(
            f"the network fails in {self._probe.attribution.failed_in} on inputs of shape {batch.shapes} "
            f"({reason})",
            "inputs that the network takes",
            "check the data's shape and dtype, or pass forward=callable(model, batch) in the plan",
        )


class _Arrived(BaseException):
    """The run has come to the layer that it was to reach."""


def _merged(parts: tuple[dict[str, Pooled], ...]) -> dict[str, Pooled]:
    """The inputs of all processes, by layer, in the same order everywhere."""
    paths = dict.fromkeys(path for part in parts for path in part)
    return {path: merged_pools(part[path] for part in parts if path in part) for path in paths}

"""Whether a change of a network leaves its function as it was: outputs before and after, compared.

In float64 a right fold differs by rounding, 1e-13 or less, and a wrong one by 1e-3 or more, so that a
threshold of 1e-9 separates them by orders of magnitude. Float32 separates less well; it serves where a
network doesn't run in float64.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.fold.layers.bordered import OtherSize
from convscope.fold.planning.plan import Place
from convscope.fold.proof.comparison import Comparison, Findings, Wrong
from convscope.fold.proof.differences import error_at, expected_at
from convscope.fold.proof.runs import Run, Runner, running
from convscope.fold.proof.trials import Kind, Trial, given, of_other_batch, of_other_size, random_like

THRESHOLDS = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest relative error that passes, by the dtype of the comparison."""

# The kinds of trials, those first that are likelier to fail.
_ORDER: tuple[Kind, ...] = ("given", "other size", "other number", "random")


class NotComparable(Exception):  # noqa: N818 - no error: a verdict
    """The network before the change didn't run on any of the trials."""


class Witness:
    """Runs of a network before its change, to compare runs after it with.

    Args:
        network: a copy that nobody changes.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
        addresses: of module calls whose results are read on the way; in the first trial whole, in the
            others here and there.
        dtype: of floating inputs and of new tensors; None leaves them as they were given.
        most: how many kinds of trials, of the four.

    Attributes:
        passes: how many runs there have been, before and after changes.

    Raises:
        NotComparable: the network runs on none of the trials, or its outputs are never finite.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        addresses: Sequence[str],
        dtype: torch.dtype | None = None,
        most: int = 4,
    ) -> None:
        self._dtype = dtype
        self._read = frozenset(addresses)
        self._missing: list[Kind] = []
        with running(network, addresses, dtype) as run:
            self._runs = sorted(self._first_runs(run, inputs, most), key=lambda r: _ORDER.index(r.trial.kind))
        self.passes = len(self._runs)

    @property
    def num_trials(self) -> int:
        """How many runs a whole comparison takes."""
        return len(self._runs)

    @property
    def whole_trial(self) -> Trial:
        """The trial in which values are known whole."""
        return next(run.trial for run in self._runs if run.is_whole)

    def compare(
        self, changed: nn.Module, places: tuple[Place, ...], threshold: float = float("inf")
    ) -> Comparison:
        """Return what the same trials show of a network after the change.

        Args:
            changed: the network after the change.
            places: some of those that were read before, with the gauges that are expected there.
            threshold: the first trial with a larger error is the last one, and the first one next time.
        """
        expected = {place.address: place for place in places if place.address in self._read}
        found = Findings(expected, threshold)
        with running(changed, list(expected), self._dtype) as run:
            for before in tuple(self._runs):
                self.passes += 1
                try:
                    found.compare(before, run(before.trial, before.is_whole))
                except OtherSize:
                    found.one_size = True  # as its user wished
                except Exception as error:
                    found.failure, found.failed_in = _sentence(error), run.failed_in
                found.reached = run.reached
                if found.is_wrong:
                    found.failed_on = before.trial.kind
                    self._runs = [before, *(run for run in self._runs if run is not before)]
                    break
        reached = {address for before in self._runs for address in before.values}
        unreached = expected.keys() - reached  # the copy runs something else
        return found.comparison(unreached, self._missing)

    def forced(self, changed: nn.Module, places: tuple[Place, ...], threshold: float) -> Wrong | None:
        """Return what is wrong where all that comes before is right, by one more run.

        In the trial whose values are known whole, each place that is wrong is put right before the run
        goes on.

        Args:
            changed: the network after the change.
            places: as :meth:`compare` takes them.
            threshold: the largest relative error that is right.

        Returns:
            None if the run fails.
        """
        expected = {place.address: place for place in places if place.address in self._read}
        before = next(run for run in self._runs if run.is_whole)
        found = Findings(expected, threshold)

        def put_right(address: str, value: Tensor) -> Tensor | None:
            known = before.values.get(address)
            if known is None or error_at(expected[address], known, value) <= threshold:
                return None
            return expected_at(expected[address], known, value).to(value.dtype)

        with running(changed, list(expected), self._dtype) as run:
            self.passes += 1
            try:
                found.compare(before, run(before.trial, True, put_right))
            except Exception:
                return None
        return found.comparison(frozenset(), ()).wrong(threshold)

    def _first_runs(self, run: Runner, inputs: Any, most: int) -> Iterator[Run]:
        """The first trial of each kind on which a network runs."""
        failure = ""
        num_runs = 0
        kinds = (given(inputs), random_like(inputs, 1), of_other_size(inputs, 2), of_other_batch(inputs, 3))
        for attempts in kinds[:most]:
            failed: Kind | None = None
            for trial in attempts:
                try:
                    made = run(trial, num_runs == 0)
                except Exception as error:
                    failure, failed = failure or _sentence(error), trial.kind
                    continue
                if not any(bool(tensor.isfinite().any()) for tensor in made.outputs):
                    failure, failed = failure or "none of its outputs is a finite number", trial.kind
                    continue
                num_runs, failed = num_runs + 1, None
                yield made
                break
            self._missing += [] if failed is None else [failed]
        if not num_runs:
            raise NotComparable(failure)


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__

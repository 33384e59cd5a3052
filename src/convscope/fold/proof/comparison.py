"""What trials of a network before and after a change have shown, taken in one after the other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import get_args

from convscope.fold.planning.plan import Place
from convscope.fold.proof.differences import apart_by_shift, difference, error_at
from convscope.fold.proof.runs import Run
from convscope.fold.proof.trials import Kind, Trial


@dataclass(frozen=True)
class Wrong:
    """What a run after a change has shown to be wrong.

    Attributes:
        places: the addresses of the places which differ by more than the threshold.
        shifted: those of them that differ by a constant for each channel.
        outputs: whether outputs do.
    """

    places: frozenset[str]
    shifted: frozenset[str]
    outputs: bool


@dataclass(frozen=True)
class Comparison:
    """What the outputs of a network before and after a change have shown.

    Attributes:
        max_error: the largest over the trials of :func:`difference`'s first number.
        mean_error: the mean over the trials of its second.
        at: the largest relative error at each place, by its address; infinite where a run comes by that the
            other one doesn't come by.
        trials: the trials that were compared.
        failed_on: what the trial was for that ended the comparison, or "".
        failure: what the network raised in the run after the change, or "".
        failed_in: the address of the innermost module call that raised it, or "".
        reached: the places by which the last run came, in its order.
        shifted: the places that differ by a constant for each channel.
        writes: whether the network writes to its inputs after the change, and didn't before.
        missing: kinds of trials on which the network doesn't run.
        one_size: whether it was folded for one size, and refuses another one.
    """

    max_error: float
    mean_error: float
    at: dict[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    failed_on: str = ""
    failure: str = ""
    failed_in: str = ""
    reached: tuple[str, ...] = ()
    shifted: frozenset[str] = frozenset()
    writes: bool = False
    missing: tuple[Kind, ...] = ()
    one_size: bool = False

    def within(self, threshold: float) -> bool:
        """Whether no output and no place differs by more; NaN is more than anything."""
        errors = (self.max_error, *self.at.values())
        return not (self.failure or self.writes) and all(error <= threshold for error in errors)

    def wrong(self, threshold: float) -> Wrong:
        """Return what differs by more."""
        places = frozenset(address for address, error in self.at.items() if not error <= threshold)
        return Wrong(places, self.shifted & places, not self.max_error <= threshold)


class Findings:
    """What trials show, one after the other."""

    def __init__(self, expected: dict[str, Place], threshold: float) -> None:
        self._expected, self._threshold = expected, threshold
        self._errors: list[tuple[float, float]] = []
        self._at: dict[str, float] = {}
        self._trials: list[Trial] = []
        self._shifted: set[str] = set()
        self._writes = False
        self.failure = self.failed_in = self.failed_on = ""
        self.reached: tuple[str, ...] = ()
        self.one_size = False

    def compare(self, before: Run, after: Run) -> None:
        """Take in one trial."""
        self._trials.append(before.trial)
        self._errors.append(difference(before.outputs, after.outputs))
        self._writes |= after.writes and not before.writes
        for address, place in self._expected.items():
            values = before.values.get(address), after.values.get(address)
            error = error_at(place, *values)
            self._at[address] = max(self._at.get(address, 0.0), error)
            if not error <= self._threshold and apart_by_shift(place, *values):
                self._shifted.add(address)

    @property
    def is_wrong(self) -> bool:
        """Whether there is no need to go on."""
        is_known = bool(self._errors or self.failure)
        return is_known and not self.comparison(frozenset(), ()).within(self._threshold)

    def comparison(self, unreached: Iterable[str], missing: Iterable[Kind]) -> Comparison:
        """Return what was found; where no run came by, the error is infinite."""
        most = max((maximum for maximum, _ in self._errors), default=float("inf"))
        mean = sum(mean for _, mean in self._errors) / max(len(self._errors), 1)
        order = get_args(Kind)
        return Comparison(
            max_error=float("inf") if self.failure else most,
            mean_error=float("inf") if self.failure else mean,
            at={**self._at, **dict.fromkeys(unreached, float("inf"))},
            trials=tuple(sorted(self._trials, key=lambda trial: order.index(trial.kind))),
            failed_on=self.failed_on,
            failure=self.failure,
            failed_in=self.failed_in,
            reached=self.reached,
            shifted=frozenset(self._shifted),
            writes=self._writes,
            missing=tuple(missing),
            one_size=self.one_size,
        )

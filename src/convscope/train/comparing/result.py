"""What a comparison found: arms, their seeds, curves, differences and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from convscope.checkup.observed.run import Percentiles
from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.core.result import Result
from convscope.train.comparing.experiment import Claim, Published, Scale
from convscope.train.comparing.pairing import Start
from convscope.train.comparing.running import State
from convscope.train.comparing.statistics import Interval
from convscope.train.comparing.table import unknown_arm
from convscope.train.config import TrainConfig
from convscope.train.run import Divergence

VerdictName = Literal["supported", "contradicted", "can't be told"]
Bound = Literal["exact", "at least", "at most", "open"]
"""What a mean over seeds can say, where runs never reached the target."""


@dataclass(frozen=True)
class SeedRun:
    """One run of an arm.

    Attributes:
        seed: its seed.
        folder: its files; :func:`convscope.train.read_run` reads them.
        state: ``finished``, ``diverged``, ``failed``, or ``started`` or ``waiting`` where the comparison was
            interrupted; only of the first two there are numbers.
        steps: optimizer steps up to its last measurement; of a diverged run the whole epochs that were
            planned, in which it would not have come back.
        final_error: share (0 to 1) of validation images wrong after the last epoch; of a diverged run that
            of guessing, 1 − 1 / classes, which is what a network of NaNs does.
        best_error: lowest such share of all epochs.
        final_loss: validation cross-entropy after the last epoch, nats; None where it diverged.
        train_loss: mean loss of the last epoch, nats; None where it diverged.
        train_error: share of the last epoch's images wrong when they were trained on, in training mode
            (augmented, with dropout); None where it diverged.
        gap: ``final_error − train_error``; None where it diverged.
        steps_to_target: steps up to the first measurement (after an epoch, and inside it where
            ``evaluate_every`` asks for that) whose error is the target or less; None where there was none
            within ``steps``. Nothing is interpolated.
        diverged: where and at which learning rate its loss stopped being finite.
        failure: why it couldn't be trained.
        seconds: time spent in its epochs.
        measures: numbers of extra measures, ``MEASURE.NUMBER``.
    """

    seed: int
    folder: str
    state: State
    steps: int = 0
    final_error: float | None = None
    best_error: float | None = None
    final_loss: float | None = None
    train_loss: float | None = None
    train_error: float | None = None
    gap: float | None = None
    steps_to_target: int | None = None
    diverged: Divergence | None = None
    failure: str | None = None
    seconds: float = 0.0
    measures: Mapping[str, float] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it finished or diverged, and so has numbers."""
        return self.state in ("finished", "diverged")

    def number(self, quantity: str) -> float | None:
        """Return a quantity of this run by its name in a claim; None where there is no such number."""
        if not self.has_ended:
            return None
        if quantity == "diverged":
            return float(self.diverged is not None)
        if "." in quantity:
            return (self.measures or {}).get(quantity)
        value: float | None = getattr(self, quantity)
        return value


@dataclass(frozen=True)
class Reached:
    """How many runs reached the target error, and when.

    Attributes:
        num_reached: runs that did.
        num_runs: runs that ended.
        median: of the steps, those that didn't reach it counting as later than every other; None if half of
            them or more didn't.
        least: steps of the quickest; None if none reached it.
    """

    num_reached: int
    num_runs: int
    median: float | None
    least: int | None


@dataclass(frozen=True)
class ArmResult:
    """One arm over its seeds.

    Attributes:
        name: see :class:`~convscope.train.comparing.table.Arm`.
        network: its reference.
        options: of the network.
        config: settings; the seed is each run's.
        runs: one for each seed.
        final_error: over the runs that ended.
        best_error: over the runs that ended.
        train_error: over the runs that finished.
        gap: over the runs that finished.
        reached: the target error.
        num_diverged: runs that diverged.
        num_failed: runs that couldn't be trained.
        start: how its initial weights are paired with the baseline's; None for the baseline itself.
        percentiles: of the layers' outputs over training, in the first run that has them.
    """

    name: str
    network: str
    options: Mapping[str, object]
    config: TrainConfig
    runs: tuple[SeedRun, ...]
    final_error: Interval | None
    best_error: Interval | None
    train_error: Interval | None
    gap: Interval | None
    reached: Reached
    num_diverged: int
    num_failed: int
    start: Start | None
    percentiles: tuple[Percentiles, ...]


@dataclass(frozen=True)
class CurvePoint:
    """Mean and spread over seeds at one place of training.

    Attributes:
        step: optimizer steps.
        epoch: epochs; a fraction within one.
        mean: over the seeds that got here.
        low: lower end of the 95 % t interval; None for a single seed.
        high: its upper end.
        least: the smallest value.
        most: the largest value.
        num_seeds: runs that got here.
    """

    step: int
    epoch: float
    mean: float
    low: float | None
    high: float | None
    least: float
    most: float
    num_seeds: int


@dataclass(frozen=True)
class Curve:
    """One quantity of one arm over training.

    Attributes:
        arm: its name.
        quantity: ``training_loss`` (nats, mean of at most 60 stretches of steps), ``validation_loss`` (nats)
            or ``validation_error`` (share) at each measurement.
        points: in the order of the steps.
    """

    arm: str
    quantity: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Difference:
    """An arm against another, seed by seed.

    Attributes:
        arm: its name.
        against: the other arm's.
        quantity: what is compared.
        scale: ``difference``, or ``ratio``, whose mean is a geometric one.
        interval: over the seeds that both ended; None without any, and where ``bound`` is ``open``.
        p: exact two-sided sign-flip p; None with no pair or more than 20.
        bound: ``exact``; ``at least`` or ``at most`` where runs that never reached the target count with
            their last step; ``open`` where they leave room on both sides.
        is_established: whether the interval excludes no difference and the one-sided test is below 5 %;
            never with fewer than five pairs.
    """

    arm: str
    against: str
    quantity: str
    scale: Scale
    interval: Interval | None
    p: float | None
    bound: Bound
    is_established: bool


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim.

    Attributes:
        claim: what was claimed.
        verdict: ``supported``, ``contradicted`` or ``can't be told``.
        interval: of the claim's difference (or ratio) over seeds; None without a pair, and where ``bound``
            is ``open``.
        values: of single seeds, in the order of the table's seeds, bounds as ``bound`` says; None where a
            seed is missing.
        p: exact one-sided sign-flip p for the claimed direction, margin included; of ``same`` the larger of
            those on either side of the margin; None with more than 20 pairs, or where runs that never
            reached the target leave it open.
        num_seeds: pairs that it rests on.
        bound: see :class:`Difference`.
        sentence: why the verdict is so.
    """

    claim: Claim
    verdict: VerdictName
    interval: Interval | None
    values: tuple[float | None, ...]
    p: float | None
    num_seeds: int
    bound: Bound
    sentence: str


@dataclass(frozen=True)
class Made:
    """How a comparison was made.

    Attributes:
        command: that makes it again.
        machine: processor, cores, GPUs.
        versions: of convscope, PyTorch and Python.
        processes: runs side by side in the last session.
        threads: of each run.
        written: when the result was put together.
    """

    command: str
    machine: str
    versions: Mapping[str, str]
    processes: int
    threads: int
    written: str


@dataclass(frozen=True)
class Comparison(Result):
    """A table of runs, compared.

    Attributes:
        name: of the experiment, or of the folder.
        question: that was asked; empty where none was put.
        protocol: laid down before the runs.
        published: figures of the literature.
        scale: what can and can't be concluded.
        folder: where everything lies; ``index.html`` there shows it.
        data: reference of the images.
        seeds: of every arm.
        target: error to whose first reaching steps are counted; None where the baseline has no run yet.
        target_is_given: whether it was given; else it is the median, over the baseline's seeds, of its
            lowest error.
        baseline: name of the arm that others are compared with.
        arms: the table.
        curves: over training.
        differences: of every arm against the baseline.
        verdicts: one for each claim.
        notes: what a reader should know besides.
        made: how.
        num_train: training images; None where no run has begun, and in folders of earlier versions.
        num_validation: validation images, likewise.
    """

    name: str
    question: str
    protocol: str
    published: tuple[Published, ...]
    scale: str
    folder: str
    data: str
    seeds: tuple[int, ...]
    target: float | None
    target_is_given: bool
    baseline: str
    arms: tuple[ArmResult, ...]
    curves: tuple[Curve, ...]
    differences: tuple[Difference, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    made: Made
    num_train: int | None = None
    num_validation: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every run finished or diverged."""
        return all(run.has_ended for arm in self.arms for run in arm.runs)

    def arm(self, name: str) -> ArmResult:
        """Return the arm of a name.

        Raises:
            ConvscopeError: there is none; the nearest names are offered.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_arm(name, (arm.name for arm in self.arms))

    def curve(self, arm: str, quantity: str) -> Curve:
        """Return a curve by arm and quantity.

        Raises:
            ConvscopeError: there is none; the nearest names are offered.
        """
        own = {curve.quantity: curve for curve in self.curves if curve.arm == self.arm(arm).name}
        if quantity not in own:
            known = ", ".join(own) or "none: no run of it has been measured"
            raise ConvscopeError(
                f"curve {quantity!r} of arm {arm!r}",
                f"one of {known}",
                nearest(quantity, own, "correct the name"),
            )
        return own[quantity]

"""From the folders of a table's runs to the comparison."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.train.comparing.curves import curves_of
from convscope.train.comparing.experiment import Contrast, Experiment
from convscope.train.comparing.judging import difference, judge
from convscope.train.comparing.measuring import measures_of
from convscope.train.comparing.pairing import Start, start_of
from convscope.train.comparing.result import (
    ArmResult,
    Comparison,
    Curve,
    Difference,
    Made,
    Reached,
    SeedRun,
)
from convscope.train.comparing.running import START, State, failure_of, read_json, state_of
from convscope.train.comparing.statistics import LEAST_PAIRS, Interval, interval, reached_median
from convscope.train.comparing.table import Arm, PlannedRun, Table
from convscope.train.feeding.order import Order
from convscope.train.keeping.folder import read_run
from convscope.train.keeping.log import read_log
from convscope.train.run import Run


@dataclass(frozen=True)
class Ended:
    """A planned run with what its folder holds.

    Attributes:
        planned: the run.
        state: what became of it.
        run: its records; None where it hasn't begun or its log can't be read.
        failure: why it couldn't be trained.
    """

    planned: PlannedRun
    state: State
    run: Run | None
    failure: str | None

    @property
    def has_ended(self) -> bool:
        """Whether it finished or diverged."""
        return self.state in ("finished", "diverged")


def read_ended(planned: PlannedRun) -> Ended:
    """Return what a run's folder holds; a damaged one is a failed run."""
    try:
        state = state_of(planned.folder)
        run = read_run(planned.folder) if state not in ("waiting", "failed") else None
        if run is not None and state == "finished" and len(run.epochs) < run.config.epochs:
            lost = (
                f"its log holds {len(run.epochs)} of {run.config.epochs} epochs; delete {planned.folder.name}"
            )
            return Ended(planned, "failed", None, f"{lost} to train it again")
        return Ended(planned, state, run, failure_of(planned.folder))
    except ConvscopeError as error:
        return Ended(planned, "failed", None, str(error))


def collected(
    question: Experiment, out: Path, made: Made, notes: Sequence[str], runs: Sequence[PlannedRun]
) -> Comparison:
    """Return the comparison of a table from its runs' folders.

    Args:
        question: the experiment, whose table was run.
        out: the comparison's folder.
        made: how it was made.
        notes: what a reader should know.
        runs: of the table.
    """
    table = question.table
    ended = [read_ended(planned) for planned in runs]
    target = table.target if table.target is not None else _own_target(table, ended)
    notes = list(notes)
    arms = tuple(_arm(arm, table, ended, question, (target, notes)) for arm in table.arms)
    by_name = {arm.name: arm.runs for arm in arms}
    seeds = len(table.seeds)
    return Comparison(
        name=question.name,
        question=question.question,
        protocol=question.protocol,
        published=question.published,
        scale=question.scale,
        folder=str(out),
        data=table.data,
        seeds=table.seeds,
        target=target,
        target_is_given=table.target is not None,
        baseline=table.base.name,
        arms=arms,
        curves=_curves(table, ended),
        differences=_differences(table, by_name),
        verdicts=tuple(judge(claim, by_name, seeds) for claim in question.claims),
        notes=(*notes, *_warnings(table, arms)),
        made=made,
        **_num_images(ended),
    )


def _num_images(ended: Sequence[Ended]) -> dict[str, int]:
    """How many images were trained and validated on: the same in all runs, so the first says it."""
    first = next((each for each in ended if each.run is not None), None)
    start = read_log(first.planned.folder / "log.jsonl").start if first else {}
    return {name: int(start[name]) for name in ("num_train", "num_validation") if name in start}


def _own_target(table: Table, ended: Sequence[Ended]) -> float | None:
    """The median over the baseline's seeds of its lowest error: what it reaches in half of its runs."""
    lowest = [
        min(error for _, error in each.run.errors)
        for each in ended
        if each.planned.arm is table.base and each.has_ended and each.run and each.run.errors
    ]
    return statistics.median_high(lowest) if lowest else None


def _curves(table: Table, ended: Sequence[Ended]) -> tuple[Curve, ...]:
    return tuple(
        curve
        for arm in table.arms
        for curve in curves_of(arm.name, [e.run for e in ended if e.planned.arm is arm and e.run])
    )


def _arm(
    arm: Arm, table: Table, ended: Sequence[Ended], question: Experiment, told: tuple[float | None, list[str]]
) -> ArmResult:
    target, notes = told
    own = [each for each in ended if each.planned.arm is arm]
    runs = tuple(_seed_run(each, target, question, notes) for each in own)
    steps = [run.steps_to_target for run in runs if run.has_ended]
    reached = [step for step in steps if step is not None]
    return ArmResult(
        name=arm.name,
        network=arm.network,
        options=arm.options,
        config=arm.config,
        runs=runs,
        final_error=_over(runs, "final_error"),
        best_error=_over(runs, "best_error"),
        train_error=_over(runs, "train_error"),
        gap=_over(runs, "gap"),
        reached=Reached(len(reached), len(steps), reached_median(steps), min(reached, default=None)),
        num_diverged=sum(run.state == "diverged" for run in runs),
        num_failed=sum(run.state == "failed" for run in runs),
        start=_start(arm, table, ended, notes),
        percentiles=next((e.run.percentiles for e in own if e.run and e.run.percentiles), ()),
    )


def _over(runs: Sequence[SeedRun], quantity: str) -> Interval | None:
    numbers = (run.number(quantity) for run in runs)
    return interval([number for number in numbers if number is not None])


def _seed_run(ended: Ended, target: float | None, question: Experiment, notes: list[str]) -> SeedRun:
    planned, run = ended.planned, ended.run
    seed, folder = planned.seed, str(planned.folder)
    if run is None or not ended.has_ended:
        return SeedRun(seed, folder, ended.state, failure=ended.failure)
    errors = [1 - record.validation_accuracy for record in run.epochs]
    guessing = 1 - 1 / len(run.classes)
    last = None if run.diverged else run.epochs[-1]
    final = guessing if last is None else errors[-1]
    reached = (step for step, error in run.errors if target is not None and error <= target + 1e-9)
    # What is measured of a network that has come to its end can't be measured of one that hasn't.
    numbers, problems = measures_of(planned.folder, () if run.diverged else question.measures)
    notes += [f"{planned.name}: {problem}" for problem in problems]
    train_error = None if last is None else 1 - last.train_accuracy
    return SeedRun(
        seed=seed,
        folder=folder,
        state=ended.state,
        steps=_steps(run, planned),
        final_error=final,
        best_error=min(errors, default=guessing),
        final_loss=None if last is None else last.validation_loss,
        train_loss=None if last is None else last.train_loss,
        train_error=train_error,
        gap=None if train_error is None else final - train_error,
        steps_to_target=next(reached, None),
        diverged=run.diverged,
        seconds=run.seconds,
        measures=numbers,
    )


def _steps(run: Run, planned: PlannedRun) -> int:
    """Steps within which the target was or wasn't reached; a diverged run would not have until its end."""
    if run.diverged is None:
        return run.errors[-1][0]
    num_train = int(read_log(planned.folder / "log.jsonl").start["num_train"])
    return run.config.epochs * Order(num_train, run.config.batch_size, 1, run.config.seed).steps_per_epoch


def _start(arm: Arm, table: Table, ended: Sequence[Ended], notes: list[str]) -> Start | None:
    if arm is table.base:
        return None
    folders = {(each.planned.arm.name, each.planned.seed): each.planned.folder for each in ended}
    pairs = []
    for seed in table.seeds:
        try:
            ours, theirs = (read_json(folders[name, seed] / START) for name in (arm.name, table.base.name))
        except ConvscopeError:
            notes.append(f"{arm.name}, seed {seed}: a {START} is damaged, so its paired start isn't told")
            continue
        if ours is not None and theirs is not None:
            pairs.append((ours, theirs))
    return start_of(arm.name, pairs) if pairs else None


def _differences(table: Table, runs: dict[str, tuple[SeedRun, ...]]) -> tuple[Difference, ...]:
    base, seeds = (table.base.name,), len(table.seeds)
    return tuple(
        difference(contrast, runs, seeds)
        for arm in table.arms
        if arm is not table.base
        for contrast in (
            Contrast("final_error", (arm.name,), base),
            Contrast("gap", (arm.name,), base),
            Contrast("steps_to_target", (arm.name,), base, scale="ratio"),
        )
    )


def _warnings(table: Table, arms: Sequence[ArmResult]) -> list[str]:
    notes = []
    if len(table.seeds) < LEAST_PAIRS:
        many = "1 seed" if len(table.seeds) == 1 else f"{len(table.seeds)} seeds"
        notes.append(f"{many}: the sign of a difference can't be established with fewer than {LEAST_PAIRS}")
    left = sum(not run.has_ended and run.state != "failed" for arm in arms for run in arm.runs)
    if left:
        notes.append(f"{left} runs haven't ended: compare again to go on")
    notes += [
        f"{arm.name}, seed {run.seed}, failed: {run.failure}"
        for arm in arms
        for run in arm.runs
        if run.state == "failed"
    ]
    return notes

"""What a comparison will take, from a few steps of every distinct network and batch size.

The steps are real ones, by :func:`convscope.train.train` on the first images of the data, in a process like
those that will train; the second of two short epochs counts. So do the starts: of a process with its imports
and images, and of a run with its network and its files. Limits: measured with one run at a time, while
several side by side share the memory's bandwidth; extra measures and the growth of logs aren't counted.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from convscope.core.result import Result
from convscope.data import ImageData
from convscope.train.comparing.running import Feed, images_for, network_for
from convscope.train.comparing.table import Arm, PlannedRun
from convscope.train.feeding.order import Order
from convscope.train.request import train

_STEPS = 3
_SLOW_ENOUGH = 1e-8  # a learning rate at which nothing can diverge


@dataclass(frozen=True)
class Probe:
    """A few steps of one arm, measured.

    Attributes:
        arm: name of the arm that was measured.
        batch_size: images in a step.
        num_train: training images of the data.
        num_validation: validation images of the data.
        step_seconds: of a training step, loading included.
        evaluation_seconds: of the measurement after an epoch.
        disk_bytes: of a run's checkpoint and two files of weights.
        memory_bytes: largest resident memory of the process, or of the GPU where one is used.
        start_seconds: of a run besides its steps and evaluations: its network, its first and last files.
        process_seconds: of a process before its first run: its imports, if it was started for this, and the
            images.
        seconds: of these few steps in all, images included.
        losses: of these steps, then of the measurements, in nats.
    """

    arm: str
    batch_size: int
    num_train: int
    num_validation: int
    step_seconds: float
    evaluation_seconds: float
    disk_bytes: int
    memory_bytes: int
    start_seconds: float = 0.0
    process_seconds: float = 0.0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch, a last batch with fewer images among them."""
        return Order(self.num_train, self.batch_size, 1, seed=0).steps_per_epoch


@dataclass(frozen=True)
class ComparisonForecast(Result):
    """What the runs of a table will take.

    Attributes:
        runs: runs of the table.
        runs_left: of them, those still to do.
        steps_left: optimizer steps of those, as if none was begun.
        seconds: until the last of those has ended, if every run is as fast beside others as it was alone;
            starts included.
        processes: runs side by side.
        threads: of each run.
        disk_bytes: that those runs will need.
        free_bytes: of the disk.
        memory_bytes: of all processes together.
        available_bytes: of memory; None where the system doesn't say.
        probes: what was measured.
        start_seconds: of ``seconds``, what goes by before the first step of a process's first run.
        alike: pairs of arms of different options whose networks had the same losses to the last bit in those
            few steps: most likely the network doesn't use the option.
    """

    runs: int
    runs_left: int
    steps_left: int
    seconds: float
    processes: int
    threads: int
    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    available_bytes: int | None
    probes: tuple[Probe, ...]
    start_seconds: float = 0.0
    alike: tuple[tuple[str, str], ...] = ()


def distinct(runs: Iterable[PlannedRun]) -> list[Arm]:
    """Return one arm for every distinct network, options, batch size and way of taking a step."""
    arms: dict[Any, Arm] = {}
    for run in runs:
        key = (run.arm.network, repr(sorted(run.arm.options.items())), *_way_of_stepping(run.arm))
        arms.setdefault(key, run.arm)
    return list(arms.values())


def _way_of_stepping(arm: Arm) -> tuple[Any, ...]:
    config = arm.config
    return (
        config.batch_size, config.accumulation, config.precision, config.augment, config.crop,
        config.evaluation,
    )  # fmt: skip


def alike(probes: Sequence[tuple[Arm, Probe]]) -> tuple[tuple[str, str], ...]:
    """Return the names of arms of one network with different options that computed the same, in pairs."""
    return tuple(
        (one.name, other.name)
        for (one, its), (other, others) in combinations(probes, 2)
        if one.network == other.network
        and _way_of_stepping(one) == _way_of_stepping(other)
        and its.losses
        and its.losses == others.losses
    )


def like(arm: Arm, probes: Iterable[tuple[Arm, Probe]]) -> Probe | None:
    """Return what was measured of an arm, or of one like it."""
    runs = [PlannedRun(each, 0, Path()) for each in (arm,)]
    (wanted,) = distinct(runs)
    for measured, probe in probes:
        if len(distinct([PlannedRun(wanted, 0, Path()), PlannedRun(measured, 0, Path())])) == 1:
            return probe
    return None


def probe(arm: Arm, feed: Feed) -> Probe:
    """Return what a few steps of an arm take; nothing is left on the disk.

    Raises:
        ConvscopeError: the arm can't be trained.
    """
    began = time.perf_counter()
    images = images_for(arm, feed)
    loading = time.perf_counter() - began
    loaded = network_for(arm, images, seed=0)
    config = replace(arm.config, epochs=2, learning_rate=_SLOW_ENOUGH, schedule="constant", warmup_epochs=0.0)
    few = _First(images, config.batch_size * _STEPS, min(len(images.validation), 2 * config.batch_size))
    with tempfile.TemporaryDirectory(prefix="convscope-") as folder:
        run = train(loaded, few, out=folder, config=config)
        sizes = {file.name: file.stat().st_size for file in Path(folder).glob("*.safetensors")}
    whole = time.perf_counter() - began
    steps_seconds = evaluation = starting = 0.0  # of an arm that diverges at once, as its runs will
    if run.epochs:
        starting = max(whole - loading - len(run.epochs) * run.epochs[-1].seconds, 0.0)
        last = run.epochs[-1]
        steps_seconds = few.num_train / last.images_per_second
        evaluation = max(last.seconds - steps_seconds, 0.0) * len(images.validation) / few.num_validation
    return Probe(
        arm=arm.name,
        batch_size=config.batch_size,
        num_train=len(images.train),
        num_validation=len(images.validation),
        step_seconds=steps_seconds / Order(few.num_train, config.batch_size, 1, seed=0).steps_per_epoch,
        evaluation_seconds=evaluation,
        disk_bytes=sum(sizes.values()),
        memory_bytes=_peak_memory(),
        start_seconds=starting,
        process_seconds=loading,
        seconds=whole,
        losses=(*(step.loss for step in run.steps), *(epoch.validation_loss for epoch in run.epochs)),
    )


class _First:
    """The first images of some data, as data."""

    def __init__(self, images: ImageData, num_train: int, num_validation: int) -> None:
        self.num_train, self.num_validation = min(num_train, len(images.train)), num_validation
        self.train = _Some(images.train, self.num_train)
        self.validation = _Some(images.validation, num_validation)
        self.classes, self.name = images.classes, images.name
        self.mirrors = getattr(images, "mirrors", False)


class _Some:
    def __init__(self, images: Any, number: int) -> None:
        self.images, self.number = images, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        return self.images[index]


def _peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_seconds(arm: Arm, measured: Probe) -> float:
    """Return how long one run of an arm takes at the measured speed, in a process that is ready for it."""
    steps, every = measured.steps_per_epoch, arm.config.evaluate_every
    evaluations = 1 + ((steps - 1) // every if every else 0)
    epoch = steps * measured.step_seconds + evaluations * measured.evaluation_seconds
    return measured.start_seconds + arm.config.epochs * epoch


def makespan(seconds: Iterable[float], processes: int) -> float:
    """Return when the last of some runs ends, each given to the first process that is free.

    Example:
        >>> makespan([3.0, 2.0, 2.0], 2), makespan([], 2)
        (4.0, 0.0)
    """
    ends = [0.0] * max(processes, 1)
    for each in seconds:
        ends[ends.index(min(ends))] += each
    return max(ends)

"""The training of a report: the network with its normalisation, and a twin without, otherwise the same."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import Loaded
from convscope.report.whole.norm_effect import NormEffect, norm_effect
from convscope.report.whole.request import Stages
from convscope.report.whole.subject import Asked, Met, build
from convscope.train import EpochRecord, Forecast, Pulse, Run, TrainConfig, train

_TOLD_EVERY = 5


@dataclass(frozen=True)
class Learned:
    """What came of the training.

    Attributes:
        effect: the runs side by side.
        no_twin: why there is no second run; empty if there is one.
        diverged: why the trained network can't be looked at; empty if it can.
    """

    effect: NormEffect
    no_twin: str
    diverged: str


def learn(asked: Asked, met: Met, folder: Path, stages: Stages) -> Learned:
    """Train a report's network in place, and its twin, and return how it went.

    Args:
        asked: what was asked for.
        met: the network and its images.
        folder: the runs' folder.
        stages: is told the course.

    Raises:
        ConvscopeError: the network can't be trained on these images.
    """
    norm = met.norm or "its own"
    stages.begin("training with the normalisation")
    run = _run(met.network, asked, met, folder / f"with-{met.norm or 'own'}-norm", stages)
    twin, (plain, no_twin) = None, _plain(asked, met)
    if plain is not None:
        stages.begin("training without it")
        twin = _run(plain, asked, met, folder / "without-norm", stages)
    effect = norm_effect(norm, run, twin, len(met.images.validation))
    diverged = ""
    if run.diverged is not None:
        diverged = (
            f"The training diverged at step {run.diverged.step}, so there is no trained network to look at."
        )
    return Learned(effect, no_twin, diverged)


def _plain(asked: Asked, met: Met) -> tuple[Loaded | None, str]:
    """The network built without its normalisation, or why it can't be."""
    if met.norm == "none":
        return None, "The network has no normalisation, so it is its own twin."
    if not met.norm or isinstance(asked.network, nn.Module):
        return (
            None,
            "A twin without the normalisation can only be built where norm (--norm) says which it is.",
        )
    try:
        return build(asked, met.images, "none"), ""
    except ConvscopeError as error:
        return None, f"A twin without the normalisation can't be built: {error}."


def _run(network: Loaded | nn.Module, asked: Asked, met: Met, folder: Path, stages: Stages) -> Run:
    config = TrainConfig(
        epochs=asked.config.epochs,
        batch_size=asked.config.batch_size,
        learning_rate=asked.config.learning_rate,
        augment="shift",
        seed=asked.config.seed,
        warmup_epochs=min(1.0, asked.config.epochs / 4),
    )
    return train(network, met.images, out=folder, config=config, progress=_Course(stages))


class _Course:
    """Hands the course of a run on to the report's watcher."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._best = ""

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:
        """Do nothing: the stage has begun."""

    def forecast(self, forecast: Forecast) -> None:
        """Do nothing: the stages have no place for it."""

    def step(self, pulse: Pulse) -> None:
        """Tell where the run is, now and then."""
        if pulse.step % _TOLD_EVERY == 0:
            detail = f"epoch {pulse.epoch} of {pulse.epochs}{self._best}"
            self._stages.tell(detail, pulse.step / pulse.total_steps)

    def epoch(self, record: EpochRecord) -> None:
        """Remember the accuracy for the next words."""
        self._best = f", {record.validation_accuracy:.1%} of validation images right"

    def stop(self) -> None:
        """Do nothing: the next stage begins."""

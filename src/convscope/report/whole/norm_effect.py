"""Did the normalisation help this network to learn? Two runs that differ in nothing else.

One run each, with the same settings, seed, order of images and learning rate: a demonstration, not a
statistical test. A gap of a few validation images may be chance; the findings say how many images it is.
"""

from dataclasses import dataclass

from convscope.core.finding import Evidence, Finding
from convscope.core.result import Result
from convscope.core.units import counted, format_percent
from convscope.train.run import Run

_SOURCE = "Ioffe & Szegedy, Batch Normalization (2015), section 4.2; measured here with one run each"


@dataclass(frozen=True)
class NormEffect(Result):
    """A run with a normalisation beside its twin without.

    Attributes:
        norm: the normalisation of the first run.
        run: with it.
        twin: without it; None if there was none.
        num_validation: images that the validation accuracies rest on.
        accuracy, twin_accuracy: validation accuracy after the last epoch (top-1).
        best_accuracy, twin_best_accuracy: after the best epoch.
        epochs_to_twin: the first epoch after which ``run`` was at least as good as its twin ever was; None
            if it never was, or if there is no twin.
        findings: what the curves say.
    """

    norm: str
    run: Run
    twin: Run | None
    num_validation: int
    accuracy: float | None
    twin_accuracy: float | None
    best_accuracy: float | None
    twin_best_accuracy: float | None
    epochs_to_twin: int | None
    findings: tuple[Finding, ...]


def norm_effect(norm: str, run: Run, twin: Run | None, num_validation: int) -> NormEffect:
    """Return a run and its twin side by side.

    Args:
        norm: the normalisation that ``run`` has and ``twin`` lacks.
        run: with it.
        twin: without it, otherwise with the same settings; None if there is none.
        num_validation: number of validation images.
    """
    twin_best = _best(twin) if twin else None
    return NormEffect(
        norm=norm,
        run=run,
        twin=twin,
        num_validation=num_validation,
        accuracy=run.validation_accuracy,
        twin_accuracy=twin.validation_accuracy if twin else None,
        best_accuracy=_best(run),
        twin_best_accuracy=twin_best,
        epochs_to_twin=_first_epoch(run, twin_best),
        findings=(
            *_divergences(norm, run, twin),
            *_gap(norm, run, twin, num_validation),
            *_overfitting(norm, run),
        ),
    )


def _best(run: Run) -> float | None:
    return run.best_epoch.validation_accuracy if run.best_epoch else None


def _first_epoch(run: Run, accuracy: float | None) -> int | None:
    if accuracy is None:
        return None
    return next((record.epoch for record in run.epochs if record.validation_accuracy >= accuracy), None)


def _divergences(norm: str, run: Run, twin: Run | None) -> list[Finding]:
    found = []
    for name, candidate in ((f"with {norm} norm", run), (f"without {norm} norm", twin)):
        if candidate is None or candidate.diverged is None:
            continue
        step, rate = candidate.diverged.step, candidate.diverged.learning_rate
        found.append(
            Finding(
                fault="diverged",
                severity="warning",
                address="self",
                evidence=(
                    Evidence("optimizer step", step, "steps", "first step whose loss isn't finite"),
                    Evidence("learning rate", rate, "1", "at that step"),
                ),
                why=f"{name.capitalize()} the loss stopped being finite at step {step}.",
                remedy="Lower the learning rate, or warm it up.",
                source="the run's log",
            )
        )
    return found


def _gap(norm: str, run: Run, twin: Run | None, num_validation: int) -> list[Finding]:
    best, twin_best = _best(run), _best(twin) if twin else None
    if best is None or twin_best is None:
        return []
    images = round(abs(best - twin_best) * num_validation)
    better = "more" if best >= twin_best else "fewer"
    shares = format_percent(best), format_percent(twin_best)
    why = (
        f"With {norm} norm the network got {shares[0]} of {num_validation} validation images right at its "
        f"best, without it {shares[1]}: {counted(images, 'image', 'images')} {better}, in one run each."
    )
    evidence = [
        Evidence(f"best accuracy with {norm} norm", best, "share", "validation images, top-1"),
        Evidence("best accuracy without", twin_best, "share", "validation images, top-1"),
    ]
    epoch = _first_epoch(run, twin_best)
    if epoch is not None and best >= twin_best:
        why += f" It was as good as the other's best after epoch {epoch} of {len(run.epochs)}."
        evidence.append(Evidence("epochs to the other's best", epoch, "epochs", "validation accuracy"))
    return [Finding("normalisation-effect", "info", "self", tuple(evidence), why, "", _SOURCE)]


def _overfitting(norm: str, run: Run) -> list[Finding]:
    """Say so if the last training loss is less than half of the validation loss."""
    last = run.epochs[-1] if run.epochs else None
    if last is None or not last.train_loss < 0.5 * last.validation_loss:
        return []
    why = (
        f"With {norm} norm the validation loss, {last.validation_loss:.2f} nats, is far above the training "
        f"loss, {last.train_loss:.2f} nats: the network knows its training images better than it generalises."
    )
    evidence = (
        Evidence("training loss", last.train_loss, "nats", "last epoch, in training mode"),
        Evidence("validation loss", last.validation_loss, "nats", "after the last epoch, in evaluation mode"),
    )
    remedy = "More images, stronger augmentation or weight decay, or fewer epochs."
    return [Finding("overfitting", "advice", "self", evidence, why, remedy, "the run's log")]

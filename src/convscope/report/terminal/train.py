"""Training runs and their comparison in the terminal."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, findings, label, sections, table, title
from convscope.report.whole.norm_effect import NormEffect
from convscope.report.wording.formats import percent, seconds, write
from convscope.train.measuring.confusion import Confusion
from convscope.train.run import Divergence, EpochRecord, Run
from convscope.train.telling.diverged import advice

_COLUMNS = ("Epoch#", "Train loss#", "Right#", "Val. loss#", "Right#", "Top-5#", "Rate#", "Time#")
_AVERAGE = "Averaged#"
_NOTE = (
    "losses: cross-entropy in nats; right: share of images whose class has the highest score; "
    "time: of training and the evaluations after it"
)
_MOST_EPOCHS = 30
_MOST_MIXUPS = 5


@renders(Run)
def render_run(run: Run) -> RenderableType:
    """Return how a run went: epochs, the best one, what is mixed up, where files are, and what is next."""
    return sections(
        title(f"Training of {run.network} on {run.data} ({len(run.classes)} classes): {run.name}"),
        _epochs(run) if run.epochs else None,
        facts(_figures(run)),
        None if run.diverged is None else facts(_divergence(run.diverged)),
        None if run.confusion is None else _mixups(run.confusion),
        facts(files) if (files := list(_files(run))) else None,
        Group(title("Next"), *map(label, _next(run))),
    )


@renders(Confusion)
def render_confusion(confusion: Confusion) -> RenderableType:
    """Return what each class is taken for, class by class, and the pairs mixed up most often."""
    columns = ("Class", "Images#", "Recognised#", "Of those taken for it#")
    images = [0] * len(confusion.classes)
    for true, _, count in confusion.counts:
        images[true] += count
    for true, count in confusion.unanswered:
        images[true] += count
    rows = [
        (name, count, write("percent", recall), write("percent", precision))
        for name, count, recall, precision in zip(
            confusion.classes, images, confusion.recall, confusion.precision, strict=True
        )
    ]
    after = "" if confusion.epoch is None else f", after epoch {confusion.epoch}"
    return sections(title(f"Classes{after}"), table(columns, rows), _mixups(confusion))


@renders(NormEffect)
def render_effect(effect: NormEffect) -> RenderableType:
    """Return two runs side by side."""
    runs = [(f"with {effect.norm} norm", effect.accuracy, effect.best_accuracy)]
    if effect.twin:
        runs.append(("without", effect.twin_accuracy, effect.twin_best_accuracy))
    rows = [(name, write("percent", last), write("percent", best)) for name, last, best in runs]
    return sections(
        title(f"Training with {effect.norm} norm" + (" and without" if effect.twin else "")),
        table(("", "Validation accuracy at the end#", "at its best#"), rows),
        findings(effect.findings),
    )


def _epochs(run: Run) -> RenderableType:
    shown = _some(run)
    averaged = any(record.average_accuracy is not None for record in shown)
    columns = (*_COLUMNS[:6], _AVERAGE, *_COLUMNS[6:]) if averaged else _COLUMNS
    left_out = len(run.epochs) - len(shown)
    note = f"{_NOTE}; {left_out} more epochs are in log.jsonl" if left_out else _NOTE
    return table(columns, (_row(record, averaged) for record in shown), note=note)


def _some(run: Run) -> Sequence[EpochRecord]:
    """All epochs, or of many the first, the last, the best, and others evenly between."""
    last, best = len(run.epochs) - 1, run.best_epoch
    if last < _MOST_EPOCHS:
        return run.epochs
    places = {round(place * last / (_MOST_EPOCHS - 1)) for place in range(_MOST_EPOCHS)}
    return [record for place, record in enumerate(run.epochs) if place in places or record is best]


def _row(record: EpochRecord, averaged: bool) -> tuple[object, ...]:
    return (
        record.epoch,
        f"{record.train_loss:.4f}",
        percent(record.train_accuracy),
        f"{record.validation_loss:.4f}",
        percent(record.validation_accuracy),
        write("percent", record.validation_top5),
        *([write("percent", record.average_accuracy)] if averaged else []),
        f"{record.learning_rate:.3g}",
        seconds(record.seconds),
    )


def _figures(run: Run) -> Iterator[tuple[str, str]]:
    best = run.best_epoch
    if run.num_train is not None and run.num_validation is not None:
        yield "images", f"{run.num_train:,} to train on, {run.num_validation:,} for validation"
    if best is not None:
        top5 = (
            ""
            if best.validation_top5 is None
            else f" (among the first five: {percent(best.validation_top5)})"
        )
        of = "" if run.num_validation is None else f"{run.num_validation:,} "
        right = f"{percent(best.validation_accuracy)} of {of}validation images right{top5}"
        yield "best", f"{right}, after epoch {best.epoch}"
        last = run.epochs[-1]
        if last.average_accuracy is not None:
            yield "averaged", f"{percent(last.average_accuracy)} right with the averaged weights, at the end"
        if last.skipped_steps:
            yield (
                "skipped",
                f"{last.skipped_steps:,} of {last.step:,} steps, whose gradients overflowed float16",
            )
    yield "time", f"{seconds(run.seconds)} of training and evaluation"
    if run.epochs:
        yield "speed", f"{run.images_per_second:,.0f} training images per second of training alone"


def _divergence(diverged: Divergence) -> Iterator[tuple[str, str]]:
    place = f"step {diverged.step:,} (epoch {diverged.epoch}), learning rate {diverged.learning_rate:g}"
    yield "diverged", f"at {place}: loss {diverged.loss:g}"
    if diverged.address is not None:
        index = "" if diverged.index is None else f" at {list(diverged.index)}"
        what = " ".join(word for word in (diverged.value, diverged.what) if word)
        yield "first", f"{what or 'value'} in {diverged.address}{index}"
    if diverged.image is not None:
        yield "image", f"training image {diverged.image}"
    if diverged.largest_finite is not None:
        yield "before it", f"largest finite magnitude {diverged.largest_finite:.3g}"
    if diverged.appeared_at is not None and diverged.appeared_at != diverged.step:
        earlier = f"step {diverged.appeared_at:,}" if diverged.appeared_at else "before the first step"
        yield "appeared", f"{earlier}; the loss was finite until step {diverged.step:,}"


def _mixups(confusion: Confusion) -> RenderableType | None:
    rows = [
        (confusion.classes[each.true], confusion.classes[each.predicted], each.count, percent(each.share))
        for each in confusion.most_confused(_MOST_MIXUPS)
    ]
    lost = sum(count for _, count in confusion.unanswered)
    note = f"images without an answer: {lost:,} (a score is NaN, or the highest is of none of the classes)"
    if not rows:
        return label(note) if lost else None
    columns = ("Most often mixed up", "taken for", "Images#", "of its class#")
    return table(columns, rows, note=note if lost else "")


def _files(run: Run) -> Iterator[tuple[str, str]]:
    files = (
        ("weights", run.weights),
        ("best weights", run.best_weights),
        ("averaged", run.average_weights),
        ("checkpoint", run.checkpoint),
    )
    yield from ((name, path) for name, path in files if path)


def _next(run: Run) -> Iterator[str]:
    """What to do now, as it is typed."""
    weights = _weights_to_look_at(run)
    if run.diverged is not None:
        slower = run.diverged.what not in ("input", "buffer", "running statistics")
        with_rate = f" with --learning-rate {run.diverged.learning_rate / 10:.2g}" if slower else ""
        yield f"train into a new folder{with_rate}: {advice(run.diverged)}"
    elif run.weights is None:
        yield "go on: the same command with --resume"
    elif weights is None or not _has_reference(run):
        yield f"look at it: convscope.checkup(model, data), or read it again: read_run({_folder(run)!r})"
    else:
        words = [run.network, "--weights", weights, "--data", run.data]
        yield shlex.join(["convscope", "checkup", *words])
        yield shlex.join(["convscope", "gallery", *words])


def _weights_to_look_at(run: Run) -> str | None:
    """The file with the best weights: those of the best epoch, or the average where that is better."""
    best, last = run.best_epoch, run.epochs[-1] if run.epochs else None
    if best is None or last is None or last.average_accuracy is None:
        return run.best_weights
    return run.average_weights if last.average_accuracy > best.validation_accuracy else run.best_weights


def _folder(run: Run) -> str:
    return str(Path(run.weights or run.name).parent)


def _has_reference(run: Run) -> bool:
    """Whether the network can be named on a command line, not only by its class."""
    return run.network in ("alexnet", "zfnet") or ":" in run.network

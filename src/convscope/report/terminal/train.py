"""Training runs and their comparison in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.comparison import Comparison
from convscope.report.formats import percent, seconds, write
from convscope.report.terminal.tables import facts, findings, sections, table, title
from convscope.train import EpochRecord, Run

_COLUMNS = ("Epoch#", "Train loss, nats#", "Train accuracy#", "Validation loss, nats#",
            "Validation accuracy#", "Top-5#", "Learning rate#", "Images/s#", "Time#")  # fmt: skip


@renders(Run)
def render_run(run: Run) -> RenderableType:
    """Return the epochs of a run, where it diverged, and where its weights are."""
    best = run.best_epoch
    shown = [
        ("time", seconds(run.seconds)),
        ("speed", f"{run.images_per_second:.0f} training images per second"),
    ]
    if best:
        shown.append(
            (
                "best",
                f"{percent(best.validation_accuracy)} of validation images right, after epoch {best.epoch}",
            )
        )
    if run.diverged:
        shown.append(
            ("diverged", f"at step {run.diverged.step}, learning rate {run.diverged.learning_rate:g}")
        )
    files = (("weights", run.weights), ("best weights", run.best_weights), ("checkpoint", run.checkpoint))
    shown += [(name, path) for name, path in files if path]
    return sections(
        title(f"Training of {run.network} on {run.data} ({len(run.classes)} classes): {run.name}"),
        table(_COLUMNS, map(_row, run.epochs)) if run.epochs else None,
        facts(shown),
    )


@renders(Comparison)
def render_comparison(comparison: Comparison) -> RenderableType:
    """Return two runs side by side."""
    runs = [(f"with {comparison.norm} norm", comparison.accuracy, comparison.best_accuracy)]
    if comparison.twin:
        runs.append(("without", comparison.twin_accuracy, comparison.twin_best_accuracy))
    rows = [(name, write("percent", last), write("percent", best)) for name, last, best in runs]
    return sections(
        title(f"Training with {comparison.norm} norm" + (" and without" if comparison.twin else "")),
        table(("", "Validation accuracy at the end#", "at its best#"), rows),
        findings(comparison.findings),
    )


def _row(record: EpochRecord) -> tuple[object, ...]:
    return (
        record.epoch,
        f"{record.train_loss:.4f}",
        percent(record.train_accuracy),
        f"{record.validation_loss:.4f}",
        percent(record.validation_accuracy),
        write("percent", record.validation_top5),
        f"{record.learning_rate:.3g}",
        f"{record.images_per_second:.0f}",
        seconds(record.seconds),
    )

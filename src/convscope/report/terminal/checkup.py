"""The check-up in the terminal."""

from rich.console import Group, RenderableType

from convscope.checkup import Checkup, NormHealth
from convscope.core.result import renders
from convscope.report.formats import counted, exact, number, write
from convscope.report.terminal.tables import facts, findings, label, sections, table, title

_COLUMNS = ("Batch norm", "Channels#", "Values#", "worth#", "Mean off by σ#", "Variance off by log#",
            "Stale#", "Dead#", "Median γ#", "Momentum#")  # fmt: skip


@renders(Checkup)
def render_checkup(checkup: Checkup) -> RenderableType:
    """Return the findings, the gap, the table of batch norms, and what couldn't be checked."""
    where = (
        f"{counted(checkup.num_samples, 'samples')} in {counted(checkup.num_batches, 'batches')}"
        if checkup.depth == "data"
        else "no data"
    )
    return sections(
        title(f"Check-up of {counted(len(checkup.layers), 'batch norms')} ({where})"),
        findings(checkup.findings, "nothing to say: no fault was found"),
        _gap(checkup),
        table(_COLUMNS, map(_row, checkup.layers)) if checkup.layers else None,
        Group(*(label(f"not checked: {each.what}: {each.reason}", "dim") for each in checkup.unchecked))
        if checkup.unchecked
        else None,
    )


def _gap(checkup: Checkup) -> RenderableType | None:
    if checkup.gap is None:
        return None
    error = f" ± {number(checkup.gap_error)}" if checkup.gap_error is not None else ""
    return facts(
        (
            ("loss with running statistics", write("number", checkup.eval_loss)),
            ("loss with batch statistics", write("number", checkup.batch_loss)),
            ("gap", number(checkup.gap) + error),
        )
    )


def _row(layer: NormHealth) -> tuple[object, ...]:
    gamma = layer.gamma_range[1] if layer.gamma_range else None
    return (
        layer.address + (" (frozen)" if layer.frozen else ""),
        exact(layer.channels),
        write("exact", layer.num_values),
        write("number", layer.effective_values),
        _with_error(layer.mean_residual, layer.mean_error),
        _with_error(layer.variance_residual, layer.variance_error),
        write("exact", layer.stale_channels),
        write("exact", layer.dead_channels),
        write("number", gamma),
        write("number", layer.momentum),
    )


def _with_error(value: float | None, error: float | None) -> str:
    return write("number", value) + (f" ± {error:.2g}" if value is not None and error is not None else "")

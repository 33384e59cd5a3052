"""A recalibration in the terminal: what changed, how far off it was and is, and what was left."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.norm.recalibration import HeldOut, RecalibratedLayer, Recalibration, Residual
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.formats import counted, exact, number, signed, with_error

_COLUMNS = ("Batch norm", "Values#", "Mean off by σ#", "after#", "Variance off by log#", "after#")
_NOTE = "largest of all channels ± its standard error, in evaluation mode on the same data"
_UNSETTLED = 'residuals above 0.1 are left: shuffle the data, or pass method="sequential"'


@renders(Recalibration)
def render_recalibration(found: Recalibration) -> RenderableType:
    """Return the outcome, the layers with their residuals, and those that were left, with the reason."""
    done = [layer for layer in found.layers if layer.status == "recalibrated"]
    left = [layer for layer in found.layers if layer.status != "recalibrated"]
    return sections(
        title(_heading(found, len(done))),
        label(f"not applied: {found.reason}", "yellow") if not found.applied else None,
        facts(_facts(found)) if done else None,
        label(_UNSETTLED, "yellow") if _is_unsettled(found) else None,
        table(_COLUMNS, (_row(layer, found.num_batches) for layer in done), note=_NOTE) if done else None,
        Group(*(label(f"left as it is: {each.path}: {each.reason}", "dim") for each in left))
        if left
        else None,
    )


def _heading(found: Recalibration, num_layers: int) -> str:
    what = f"{counted(num_layers, 'batch norms')} recalibrated" if found.applied else "Nothing changed"
    where = f"{counted(found.num_samples, 'samples')} in {counted(found.num_batches, 'batches')}"
    return f"{what} ({where}, {found.method})"


def _facts(found: Recalibration) -> list[tuple[str, str]]:
    before, after = found.residual_before, found.residual_after
    shown = [("largest residual before", "unknown" if before is None else number(before))]
    unread = "unknown: the data can't be read again"
    shown.append(("largest residual after", unread if after is None else number(after)))
    if found.held_out is not None:
        shown += _losses(found.held_out)
    return shown


def _is_unsettled(found: Recalibration) -> bool:
    return found.method == "one-pass" and (found.residual_after or 0.0) > 0.1


def _losses(losses: HeldOut) -> list[tuple[str, str]]:
    error = "" if losses.error is None else f" ± {losses.error:.2g}"
    change = f"{signed(losses.after - losses.before, number)}{error}"
    return [
        ("held-out loss before", number(losses.before)),
        ("held-out loss after", f"{number(losses.after)} (change {change})"),
    ]


def _row(layer: RecalibratedLayer, num_batches: int) -> tuple[object, ...]:
    reused = f" ({layer.num_calls} calls)" if layer.num_calls > num_batches else ""
    cells = [cell for find in (_mean, _variance) for cell in (find(layer.before), find(layer.after))]
    return (layer.path + reused, exact(layer.num_values), *cells)


def _mean(found: Residual | None) -> str:
    return "" if found is None else with_error(found.mean, found.mean_error)


def _variance(found: Residual | None) -> str:
    return "" if found is None else with_error(found.variance, found.variance_error)

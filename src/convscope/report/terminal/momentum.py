"""Corrected momenta in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.norm.momentum import MomentumCorrection
from convscope.report.terminal.tables import sections, table, title
from convscope.report.wording.formats import counted, number

_COLUMNS = ("Layer", "Momentum before#", "Momentum after#", "Remark")
_ITSELF = "(the network itself)"
_REASONS = {
    "cumulative": "kept: an average over all batches weighs them alike",
    "unmoved": "kept: without a momentum its running statistics don't move",
    "frozen": "kept: frozen",
}


@renders(MomentumCorrection)
def render_correction(correction: MomentumCorrection) -> RenderableType:
    """Return the layers' momenta, and the layers that keep theirs."""
    each = counted(correction.updates_per_step, "updates")
    changed = [
        (layer.path or _ITSELF, number(layer.before), number(layer.after), "") for layer in correction.layers
    ]
    kept = [(layer.path or _ITSELF, "", "", _REASONS[layer.reason]) for layer in correction.kept]
    return sections(
        title(f"momentum of {counted(len(changed), 'layers')} corrected for {each} per optimizer step"),
        table(_COLUMNS, [*changed, *kept]) if changed or kept else None,
    )

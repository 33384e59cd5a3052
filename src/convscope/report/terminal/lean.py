"""What a lean forward pass saved, in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.norm import LeanLayer, Savings
from convscope.report.terminal.tables import label, sections, table, title

_COLUMNS = ("Layer", "Saved without lean()#", "With it#", "Share#")
_NOTE = (
    "each storage once, at the first layer that saves it; parameters and buffers apart; 1 MiB = 1,048,576 B"
)
_NOTHING = "no tensor that it keeps can be made again from another one that it keeps"


@renders(Savings)
def render_savings(found: Savings) -> RenderableType:
    """Return the bytes that autograd keeps, in all and layer by layer."""
    total = LeanLayer("Total", found.bytes_without, found.bytes_kept)
    rows = [_row(layer) for layer in (*found.layers, total)]
    return sections(
        title(
            f"Saved for the backward pass: {format_bytes(found.bytes_kept)} in place of "
            f"{format_bytes(found.bytes_without)} ({found.share:.2f}×)"
        ),
        label(_NOTHING, "yellow") if found.bytes_kept >= found.bytes_without else None,
        table(_COLUMNS, rows, note=_NOTE),
    )


def _row(layer: LeanLayer) -> tuple[str, ...]:
    share = f"{layer.bytes_kept / layer.bytes_without:.2f}×" if layer.bytes_without else "new"
    return (
        layer.path or "the network's own code",
        format_bytes(layer.bytes_without),
        format_bytes(layer.bytes_kept),
        share,
    )

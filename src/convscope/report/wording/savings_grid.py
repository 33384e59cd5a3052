"""What a lean forward pass saved, for the terminal and the notebook alike."""

from convscope.core.units import format_bytes
from convscope.norm import LeanLayer, Savings
from convscope.report.wording.cost_grid import Grid

NOTHING = "no tensor that it keeps can be made again from another one that it keeps"
_COLUMNS = ("Layer", "Saved without lean()#", "With it#", "Share#")
_NOTE = (
    "each storage once, at the first layer that saves it; parameters and buffers apart; 1 MiB = 1,048,576 B"
)


def savings_title(found: Savings) -> str:
    """Return the bytes kept, and those without lean batch norm."""
    kept, without = format_bytes(found.bytes_kept), format_bytes(found.bytes_without)
    return f"Saved for the backward pass: {kept} in place of {without} ({found.share:.2f}×)"


def saves_nothing(found: Savings) -> bool:
    """Whether as much is kept as without lean batch norm."""
    return found.bytes_kept >= found.bytes_without


def savings_grid(found: Savings) -> Grid:
    """Return one row per layer, and their sum."""
    total = LeanLayer("Total", found.bytes_without, found.bytes_kept)
    return Grid(_COLUMNS, tuple(map(_row, found.layers)), (_row(total),), _NOTE)


def _row(layer: LeanLayer) -> tuple[str, ...]:
    share = f"{layer.bytes_kept / layer.bytes_without:.2f}×" if layer.bytes_without else "new"
    return (
        layer.path or "the network's own code",
        format_bytes(layer.bytes_without),
        format_bytes(layer.bytes_kept),
        share,
    )

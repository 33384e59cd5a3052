"""The table of batch norms as texts in a grid, with fewer columns where there is little room."""

from collections.abc import Callable, Collection, Sequence

from convscope.checkup.result import NormHealth
from convscope.report.wording.cost_grid import Grid, without
from convscope.report.wording.formats import exact, with_error, write

OPTIONAL = ("momentum", "channels", "gamma", "values", "worth", "dead")
"""Columns that a narrow place leaves out, the first one first."""

_NOTE = (
    "off by: worst of all channels at test time, ± its standard error; findings tell of stale channels, with "
    "the layers before on batch statistics"
)


def norms_grid(layers: Sequence[NormHealth], hidden: Collection[str] = ()) -> Grid:
    """Return a row of texts for each batch norm.

    Args:
        layers: a check-up's.
        hidden: columns to leave out, of :data:`OPTIONAL`; the note names them.
    """
    columns = {name: column for name, column in _COLUMNS.items() if name not in hidden}
    measured = any(layer.mean_residual is not None for layer in layers)
    return Grid(
        tuple(title for title, _ in columns.values()),
        tuple(tuple(write_cell(layer) for _, write_cell in columns.values()) for layer in layers),
        note=without(_NOTE if measured else "", [title for title, _ in map(_COLUMNS.__getitem__, hidden)]),
    )


def _name(layer: NormHealth) -> str:
    return layer.address + (" (frozen)" if layer.frozen else "")


_COLUMNS: dict[str, tuple[str, Callable[[NormHealth], str]]] = {
    "name": ("Batch norm", _name),
    "channels": ("Channels#", lambda layer: exact(layer.channels)),
    "values": ("Values#", lambda layer: write("exact", layer.num_values)),
    "worth": ("Worth#", lambda layer: write("number", layer.effective_values)),
    "mean": ("Mean off by σ#", lambda layer: with_error(layer.mean_residual, layer.mean_error)),
    "variance": (
        "Variance off by ln#",
        lambda layer: with_error(layer.variance_residual, layer.variance_error),
    ),
    "stale": ("Stale#", lambda layer: write("exact", layer.stale_channels)),
    "dead": ("Dead#", lambda layer: write("exact", layer.dead_channels)),
    "gamma": (
        "Median |γ|#",
        lambda layer: write("number", layer.gamma_range[1] if layer.gamma_range else None),
    ),
    "momentum": ("Momentum#", lambda layer: write("number", layer.momentum)),
}

"""The numbers that every row of the table has: names, units, and what they sum up to.

A name here is the row's attribute, the column of the CSV, and the word behind ``--sort``.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from convscope.core.errors import ConvscopeError
from convscope.cost.row import Row


@dataclass(frozen=True)
class Column:
    """A column of numbers, all for the whole batch.

    Attributes:
        name: the row's attribute.
        unit: of the numbers.
        meaning: in a few words.
    """

    name: str
    unit: str
    meaning: str


_COLUMNS = (
    Column("params", "elements", "parameters, shared ones once"),
    Column("parameter_bytes", "B", "parameters, shared ones once"),
    Column("activations", "elements", "outputs"),
    Column("activation_bytes", "B", "outputs"),
    Column("macs", "MACs", "multiply–accumulates of the forward pass"),
    Column("forward_flops", "FLOPs", "2 per MAC"),
    Column("backward_input_flops", "FLOPs", "gradients of the inputs"),
    Column("backward_weight_flops", "FLOPs", "gradients of the parameters"),
    Column("backward_flops", "FLOPs", "all gradients"),
    Column("step_flops", "FLOPs", "forward and backward"),
    Column("recompute_flops", "FLOPs", "forward work done again in backward"),
    Column("elementwise_ops", "operations", "forward work that isn't products"),
    Column("saved_bytes", "B", "kept for the backward pass"),
    Column("index_bytes", "B", "integers among what is kept"),
)
COLUMNS = {column.name: column for column in _COLUMNS}
"""The columns by name, in the order of the CSV."""


def column(name: str) -> Column:
    """Return the column of that name.

    Raises:
        ConvscopeError: there is none; names that are close are offered.

    Example:
        >>> column("saved_bytes").unit
        'B'
    """
    if name not in COLUMNS:
        raise ConvscopeError(
            f"column {name!r}", f"one of {', '.join(COLUMNS)}", did_you_mean(name, COLUMNS) or "choose one"
        )
    return COLUMNS[name]


def sums(rows: Iterable[Row]) -> dict[str, int]:
    """Return the sum of every column over the rows."""
    rows = tuple(rows)
    return {name: sum(getattr(row, name) for row in rows) for name in COLUMNS}


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a question that names the words closest to a misspelt one; empty if none is close.

    Example:
        >>> did_you_mean("saved", ["params", "macs", "saved_bytes"])
        "did you mean 'saved_bytes'?"
    """
    close = difflib.get_close_matches(word.lower(), set(words), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""

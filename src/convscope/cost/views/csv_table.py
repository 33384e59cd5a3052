"""CSV of results: a header whose names say the units, then plain numbers, for spreadsheets and pandas.

``params`` and ``activations`` are elements, ``*_bytes`` bytes, ``macs`` multiply–accumulates, ``*_flops``
FLOPs (2 per MAC), ``*_seconds`` medians, all for the whole batch. Shapes and windows are sizes joined by
``x``; what isn't there is an empty field. Layers may be called anything: names that a spreadsheet would take
for a formula (``=``, ``+``, ``-`` or ``@`` first) have an apostrophe in front, and control characters are
written as escapes.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from convscope.core.printable import printable
from convscope.cost.measured.values import RowTiming, Timings
from convscope.cost.row import Row
from convscope.cost.views.columns import COLUMNS

_WORDS = ("address", "path", "type_name", "op", "phase", "calls")
_FORMULA = re.compile(r"\s*[=+\-@]")  # spreadsheets pass over spaces before them
_WINDOW = ("size", "stride", "offset")
_TIMES = ("forward_seconds", "backward_seconds", "flops_per_second", "share_of_seconds")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return a CSV text, lines ending with a newline; tuples are joined by ``x``, None is empty.

    Example:
        >>> csv_text(("path", "output_shape"), [("conv1", (96, 55, 55)), ("fc, last", None)])
        'path,output_shape\nconv1,96x55x55\n"fc, last",\n'
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_field(value) for value in row] for row in rows])
    return buffer.getvalue()


def rows_csv(rows: Iterable[Row], timings: Timings | None = None) -> str:
    """Return the table's rows as CSV, one line each, in their order; with measured seconds, if there are."""
    header = [*_WORDS, "output_shape", *COLUMNS, *(f"receptive_field_{name}_px" for name in _WINDOW)]
    if timings is None:
        return csv_text(header, ([*_cells(row)] for row in rows))
    times = {row.address: row for row in timings.rows}
    return csv_text([*header, *_TIMES], ([*_cells(row), *_times(times.get(row.address))] for row in rows))


def _times(row: RowTiming | None) -> Iterable[Any]:
    if row is None:
        return [None] * len(_TIMES)
    return row.forward.median, row.backward.median, row.flops_per_second, row.share


def _cells(row: Row) -> Iterable[Any]:
    yield from (getattr(row, name) for name in _WORDS)
    yield row.output_shape
    yield from (getattr(row, name) for name in COLUMNS)
    yield from (getattr(row.receptive_field, name, None) for name in _WINDOW)


def _field(value: Any) -> Any:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if _FORMULA.match(text) else text
    return "" if value is None else value

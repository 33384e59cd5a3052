"""A part of the table: rolled up, filtered, sorted or cut, always beside the whole network's sums.

``cost.where("convolution").rolled_up(1).sorted_by("macs").top(5)``: each step returns a new selection, with
what its rows add up to and what the whole network has, so that a share can always be given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.cost.row import ModuleCalls, Row, Totals
from convscope.cost.views.columns import column, did_you_mean, sums
from convscope.cost.views.csv_table import rows_csv
from convscope.cost.views.rollup import rolled_up, unused_row


@dataclass(frozen=True)
class Selection(Result):
    """Some rows of a network's table, and the sums of them and of the whole network.

    Attributes:
        network, input_shapes, batch_size, plan: see :class:`convscope.cost.table.Cost`.
        rows: the selected rows.
        num_rows: how many there were before :meth:`top` cut them.
        rolled: whether the rows are modules' sums.
        depth: the depth that they were rolled up to; None: as deep as it goes, or not rolled up.
        patterns: what the rows had to match; empty: anything.
        order: the column that they are sorted by; empty: order of execution.
        shown: the sum over the rows, by column (see :data:`convscope.cost.views.columns.COLUMNS`).
        totals: the whole network's, by column; parameters that nothing reads are in it.
        modules: the modules that ran; not in the JSON.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"modules"})

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    batch_size: int
    plan: str
    rows: tuple[Row, ...]
    num_rows: int
    rolled: bool
    depth: int | None
    patterns: tuple[str, ...]
    order: str
    shown: Mapping[str, int]
    totals: Mapping[str, int]
    modules: tuple[ModuleCalls, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no row is left out."""
        return not self.patterns and len(self.rows) == self.num_rows

    def share(self, name: str) -> float:
        """Return the rows' share of the whole network's sum of a column; 0 where that is 0.

        Raises:
            ConvscopeError: there is no such column.
        """
        whole = self.totals[column(name).name]
        return self.shown[name] / whole if whole else 0.0

    def rolled_up(self, depth: int | None = None) -> "Selection":
        """Return the rows summed per module; see :mod:`convscope.cost.views.rollup`.

        Args:
            depth: 0 is the network, 1 its children, …; None: as deep as it goes.

        Raises:
            ConvscopeError: the depth is negative, or the rows have been rolled up before.

        Example:
            >>> from convscope.cost import cost
            >>> from torch import nn
            >>> block = nn.Linear(4, 4)
            >>> net = nn.Sequential(nn.Sequential(block, nn.ReLU(), block), nn.Linear(4, 2))
            >>> [(row.address, row.calls, row.macs) for row in cost(net, (1, 4)).rolled_up(2).rows]
            [('0.0', 2, 32), ('0.1', 1, 0), ('1', 1, 8), ('(loss)', 1, 0)]
        """
        if self.rolled:
            raise ConvscopeError("rows that are rolled up", "one row per call", "roll up `cost` itself")
        rows = rolled_up(self.rows, self.modules, depth)
        params, nbytes = (self.totals[name] - self.shown[name] for name in ("params", "parameter_bytes"))
        if self.is_whole and params:
            rows = (*rows, unused_row(params, nbytes))
        return self._with(rows, rolled=True, depth=depth, num_rows=len(rows))

    def where(self, *patterns: str) -> "Selection":
        """Return the rows that match any of the patterns.

        A pattern (``*``, ``?``, ``[…]``; letter case counts) fits a row by its operator, its module's class,
        its address, its path, or the path of any module that it lies in.

        Raises:
            ConvscopeError: no row matches.

        Example:
            >>> from convscope.cost import cost
            >>> from torch import nn
            >>> found = cost(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (1, 3, 8, 8))
            >>> [row.address for row in found.where("conv*").rows], found.where("conv*").share("macs")
            (['0#1'], 1.0)
        """
        rows = [row for row in self.rows if _matches(row, patterns)]
        if not rows:
            raise ConvscopeError(
                f"pattern {' or '.join(map(repr, patterns))}, which no row matches",
                "an operator, a class or a path of the network, such as convolution, Conv2d or features.*",
                _closest(patterns, self.rows) or "see the whole table for them",
            )
        return self._with(rows, patterns=(*self.patterns, *patterns), num_rows=len(rows))

    def sorted_by(self, name: str, descending: bool = True) -> "Selection":
        """Return the rows in the order of a column; equal ones stay in order of execution.

        Raises:
            ConvscopeError: there is no such column.
        """
        attribute = column(name).name
        rows = sorted(self.rows, key=lambda row: getattr(row, attribute), reverse=descending)
        return self._with(rows, order=attribute)

    def top(self, count: int) -> "Selection":
        """Return the first rows.

        Raises:
            ConvscopeError: ``count`` is less than 1.
        """
        if count < 1:
            raise ConvscopeError(f"top {count}", "a number of rows, at least 1", "change it")
        return self._with(self.rows[:count])

    def to_csv(self) -> str:
        """Return the rows as CSV; see :mod:`convscope.cost.views.csv_table`."""
        return rows_csv(self.rows)

    def _with(self, rows: Iterable[Row], **changes: object) -> "Selection":
        rows = tuple(rows)
        return replace(self, rows=rows, shown=sums(rows), **changes)  # type: ignore[arg-type]


def selection_of(
    subject: tuple[str, tuple[tuple[int, ...], ...], int, str],
    rows: tuple[Row, ...],
    totals: Totals,
    modules: tuple[ModuleCalls, ...],
) -> Selection:
    """Return the selection of all rows.

    Args:
        subject: the network's name, its input shapes, the batch size and the plan.
        rows: one per call.
        totals: the whole network's, for the parameters in no row.
        modules: the modules that ran.
    """
    shown = sums(rows)
    whole = {**shown, "params": totals.params, "parameter_bytes": totals.parameter_bytes}
    return Selection(*subject, rows, len(rows), False, None, (), "", shown, whole, modules)


def _matches(row: Row, patterns: Sequence[str]) -> bool:
    words = (row.address, row.op, row.type_name, *_lineage(row.path))
    return any(fnmatchcase(word, pattern) for word in words for pattern in patterns)


def _lineage(path: str) -> list[str]:
    """A path and those of the modules around it."""
    names = path.split(".")
    return [".".join(names[:length]) for length in range(1, len(names) + 1)]


def _closest(patterns: Sequence[str], rows: Iterable[Row]) -> str:
    words = {word for row in rows for word in (row.op, row.type_name, *_lineage(row.path)) if word}
    return next(filter(None, (did_you_mean(pattern, words) for pattern in patterns)), "")

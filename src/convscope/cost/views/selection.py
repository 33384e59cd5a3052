"""A part of the table: rolled up, filtered, sorted or cut, always beside the whole network's sums.

``cost.where("convolution").rolled_up(1).sorted_by("macs").top(5)``: each step returns a new selection, with
what its rows add up to and what the whole network has, so that a share can always be given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.cost.row import ModuleCalls, Row, Totals, Uncounted, UnusedParameter
from convscope.cost.views.columns import column, did_you_mean, sums
from convscope.cost.views.csv_table import rows_csv
from convscope.cost.views.rollup import rolled_up, unused_row


@dataclass(frozen=True)
class Subject:
    """What a table is of; see :class:`convscope.cost.table.Cost` for each attribute."""

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    batch_size: int
    plan: str
    device: str
    unused_parameters: tuple[UnusedParameter, ...]
    uncounted: tuple[Uncounted, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step from the whole table to a selection.

    Attributes:
        kind: the method's name.
        arguments: what it was given: patterns, a depth (None: as deep as it goes), a column, a number.
        num_before, num_after: how many rows there were.
    """

    kind: Literal["where", "rolled_up", "sorted_by", "top"]
    arguments: tuple[str | int | None, ...]
    num_before: int
    num_after: int


@dataclass(frozen=True)
class Selection(Subject, Result):
    """Some rows of a network's table, and the sums of them and of the whole network.

    Attributes:
        network, input_shapes, batch_size, plan, device: see :class:`convscope.cost.table.Cost`.
        unused_parameters, uncounted, assumptions: likewise, of the whole network.
        rows: the selected rows.
        num_rows: how many there were before :meth:`top` first cut them.
        rolled: whether the rows are modules' sums.
        depth: the depth that they were rolled up to; None: as deep as it goes, or not rolled up.
        patterns: what the rows had to match; empty: anything.
        order: the column that they are sorted by; empty: order of execution.
        descending: whether the largest is first in that order.
        steps: what led from the whole table to these rows, in order.
        shown: the sum over the rows, by column (see :data:`convscope.cost.views.columns.COLUMNS`).
        totals: the whole network's, by column; parameters that nothing reads are in it.
        modules: the modules that ran; not in the JSON.
        executed: addresses of all calls' rows in order of execution; not in the JSON.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"modules", "executed"})

    rows: tuple[Row, ...]
    num_rows: int
    rolled: bool
    depth: int | None
    patterns: tuple[str, ...]
    order: str
    descending: bool
    steps: tuple[Step, ...]
    shown: Mapping[str, int]
    totals: Mapping[str, int]
    modules: tuple[ModuleCalls, ...]
    executed: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no row is left out."""
        return not self.patterns and not self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether :meth:`top` left rows out."""
        return any(step.kind == "top" and step.num_after < step.num_before for step in self.steps)

    def share(self, name: str) -> float:
        """Return the rows' share of the whole network's sum of a column; 0 where that is 0.

        Raises:
            ConvscopeError: there is no such column.
        """
        whole = self.totals[column(name).name]
        return self.shown[name] / whole if whole else 0.0

    def rolled_up(self, depth: int | None = None) -> "Selection":
        """Return the rows summed per module; see :mod:`convscope.cost.views.rollup`.

        Rows that were sorted are sorted again, by their sums.

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
        place = {address: number for number, address in enumerate(self.executed)}
        rows = rolled_up(sorted(self.rows, key=lambda row: place[row.address]), self.modules, depth)
        params, nbytes = (self.totals[name] - self.shown[name] for name in ("params", "parameter_bytes"))
        if self.is_whole and params:
            rows = (*rows, unused_row(params, nbytes))
        step = self._step("rolled_up", (depth,), len(rows))
        return self._with(self._sorted(rows), step, rolled=True, depth=depth)

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
        return self._with(
            rows, self._step("where", patterns, len(rows)), patterns=(*self.patterns, *patterns)
        )

    def sorted_by(self, name: str, descending: bool = True) -> "Selection":
        """Return the rows in the order of a column; equal ones stay in order of execution.

        Raises:
            ConvscopeError: there is no such column.
        """
        attribute = column(name).name
        ordered = replace(self, order=attribute, descending=descending)
        return ordered._with(ordered._sorted(self.rows), self._step("sorted_by", (name,), len(self.rows)))

    def top(self, count: int) -> "Selection":
        """Return the first rows.

        Raises:
            ConvscopeError: ``count`` is less than 1.
        """
        if count < 1:
            raise ConvscopeError(f"top {count}", "a number of rows, at least 1", "change it")
        rows = self.rows[:count]
        return self._with(rows, self._step("top", (count,), len(rows)))

    def to_csv(self) -> str:
        """Return the rows as CSV; see :mod:`convscope.cost.views.csv_table`."""
        return rows_csv(self.rows)

    def _sorted(self, rows: Iterable[Row]) -> list[Row]:
        if not self.order:
            return list(rows)
        return sorted(rows, key=lambda row: getattr(row, self.order), reverse=self.descending)

    def _step(
        self,
        kind: Literal["where", "rolled_up", "sorted_by", "top"],
        arguments: tuple[str | int | None, ...],
        num_after: int,
    ) -> Step:
        return Step(kind, arguments, len(self.rows), num_after)

    def _with(self, rows: Iterable[Row], step: Step, **changes: object) -> "Selection":
        rows = tuple(rows)
        cut = self.is_cut or step.kind == "top"
        return replace(
            self,
            rows=rows,
            num_rows=self.num_rows if cut else len(rows),
            shown=sums(rows),
            steps=(*self.steps, step),
            **changes,  # type: ignore[arg-type]
        )


def selection_of(
    subject: Subject, rows: tuple[Row, ...], totals: Totals, modules: tuple[ModuleCalls, ...]
) -> Selection:
    """Return the selection of all rows.

    Args:
        subject: what they are of.
        rows: one per call.
        totals: the whole network's, for the parameters in no row.
        modules: the modules that ran.
    """
    shown = sums(rows)
    whole = {**shown, "params": totals.params, "parameter_bytes": totals.parameter_bytes}
    return Selection(
        **{each.name: getattr(subject, each.name) for each in fields(Subject)},
        rows=rows,
        num_rows=len(rows),
        rolled=False,
        depth=None,
        patterns=(),
        order="",
        descending=True,
        steps=(),
        shown=shown,
        totals=whole,
        modules=modules,
        executed=tuple(row.address for row in rows),
    )


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

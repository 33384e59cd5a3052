"""What a cost reading consists of: the table of layers, its totals, and findings.

Only numbers live here; the terminal table, the JSON and the page are renderings of :class:`Cost`.
"""

from dataclasses import dataclass, field

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.cost.measured.values import Timings
from convscope.cost.measured.verification import Verification
from convscope.cost.memory.values import Forecast
from convscope.cost.remedies.values import Explanation
from convscope.cost.row import ModuleCalls as ModuleCalls
from convscope.cost.row import Row as Row
from convscope.cost.row import RuleOfThumb as RuleOfThumb
from convscope.cost.row import Totals as Totals
from convscope.cost.row import Uncounted as Uncounted
from convscope.cost.row import UnusedParameter as UnusedParameter
from convscope.cost.views.csv_table import rows_csv
from convscope.cost.views.selection import Selection, Subject, selection_of


@dataclass(frozen=True)
class Cost(Result):
    """What every layer of a network costs, for one batch and one step.

    Attributes:
        network: its name.
        input_shapes: shapes of the network's input tensors.
        batch_size: first size of the first input.
        plan: the training plan in words; ``"inference"`` without one.
        device: whose memory rules the forecast follows.
        totals: sums over the network.
        rows: one per layer's call or functional operator, in order of execution.
        unused_parameters: parameters in no row; with the rows' they add up to ``totals.params``.
        uncounted: operators without a rule.
        rule_of_thumb: the notes' estimate of training memory.
        forecast: memory over the step.
        findings: trends, each with its numbers.
        assumptions: what the simulation had to assume.
        modules: the modules that ran, in order of their first call.
        timings: the rows' real times, where they were measured; see :func:`convscope.cost.measure`.
        explanation: what would lower the peak, where it was asked for; see :func:`convscope.cost.explain`.
        verification: the forecast beside a real step, where one ran; see :func:`convscope.cost.verify`.
        forecast_without_lean: of a lean network, the same step's memory without lean batch norm; see
            :func:`convscope.norm.lean`.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    batch_size: int
    plan: str
    device: str
    totals: Totals
    rows: tuple[Row, ...]
    unused_parameters: tuple[UnusedParameter, ...]
    uncounted: tuple[Uncounted, ...]
    rule_of_thumb: RuleOfThumb
    forecast: Forecast
    findings: tuple[Finding, ...]
    assumptions: tuple[str, ...] = field(default=())
    modules: tuple[ModuleCalls, ...] = field(default=())
    timings: Timings | None = None
    explanation: Explanation | None = None
    verification: Verification | None = None
    forecast_without_lean: Forecast | None = None

    def row(self, address: str) -> Row | None:
        """Return the row with this address or, for a bare module path, of that module's first call."""
        return next((row for row in self.rows if row.address in (address, f"{address}#1")), None)

    def select(self) -> Selection:
        """Return the table alone, with one row per call, to roll up, filter and sort."""
        return selection_of(
            Subject(
                self.network,
                self.input_shapes,
                self.batch_size,
                self.plan,
                self.device,
                self.unused_parameters,
                self.uncounted,
                self.assumptions,
            ),
            self.rows,
            self.totals,
            self.modules,
        )

    def rolled_up(self, depth: int | None = None) -> Selection:
        """Return the table summed per module; see :meth:`Selection.rolled_up`."""
        return self.select().rolled_up(depth)

    def where(self, *patterns: str) -> Selection:
        """Return the rows that match any of the patterns; see :meth:`Selection.where`."""
        return self.select().where(*patterns)

    def sorted_by(self, column: str, descending: bool = True) -> Selection:
        """Return the table in the order of one column; see :meth:`Selection.sorted_by`."""
        return self.select().sorted_by(column, descending)

    def to_csv(self) -> str:
        """Return the table as CSV, one row per call; see :mod:`convscope.cost.views.csv_table`."""
        return rows_csv(self.rows, self.timings)

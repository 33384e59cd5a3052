"""What every layer of a network costs: parameters, activations, FLOPs and memory, forward and backward.

Answers, for one batch and one training step: how many multiply–accumulates each layer does in each
direction, what it keeps for the backward pass, how much memory is in use when, and where it all sits.

Limits: arithmetic of the backward pass other than products, and the optimizer's, isn't counted; of what
cuDNN's convolutions take as scratch memory only bounds are known. Operators without a rule are listed in
``Cost.uncounted``; see :mod:`convscope.cost.arithmetic.rules` for adding one.
"""

from convscope.core.callable_room import make_callable
from convscope.cost.allocator.caching import AllocatorConfig
from convscope.cost.arithmetic.elementwise import elementwise_rule
from convscope.cost.arithmetic.flops import Gradients, backward_rule, macs_rule
from convscope.cost.arithmetic.rules import OperatorShapes
from convscope.cost.batch import LargestBatch, largest_batch
from convscope.cost.measured import Timings, Verification, measure, verify
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.values import Forecast, LiveTensor, TimelinePoint
from convscope.cost.reading import cost, cost_of
from convscope.cost.remedies import Explanation, Remedy, explain
from convscope.cost.rows import Table, table_of
from convscope.cost.rule_of_thumb import rule_of_thumb
from convscope.cost.table import (
    Cost,
    ModuleCalls,
    Row,
    RuleOfThumb,
    Totals,
    Uncounted,
    UnusedParameter,
)
from convscope.cost.views.columns import COLUMNS, Column
from convscope.cost.views.selection import Selection
from convscope.cost.views.side_by_side import NetworkCost, SideBySide, side_by_side
from convscope.cost.views.summary import Refused, Summary
from convscope.cost.views.sweep import AXES, Sweep, SweepPoint, sweep
from convscope.tape.plan import describe

__all__ = [
    "AXES",
    "COLUMNS",
    "AllocatorConfig",
    "Column",
    "Cost",
    "Explanation",
    "Forecast",
    "Gradients",
    "LargestBatch",
    "LiveTensor",
    "ModuleCalls",
    "NetworkCost",
    "OperatorShapes",
    "Refused",
    "Remedy",
    "Row",
    "RuleOfThumb",
    "Selection",
    "SideBySide",
    "Summary",
    "Sweep",
    "SweepPoint",
    "Table",
    "TimelinePoint",
    "Timings",
    "Totals",
    "Uncounted",
    "UnusedParameter",
    "Verification",
    "backward_rule",
    "cost",
    "cost_of",
    "describe",
    "elementwise_rule",
    "explain",
    "forecast",
    "largest_batch",
    "macs_rule",
    "measure",
    "rule_of_thumb",
    "side_by_side",
    "sweep",
    "table_of",
    "verify",
]

make_callable(__name__, cost)

"""What every layer of a network costs: parameters, activations, FLOPs and memory, forward and backward.

Answers, for one batch and one training step: how many multiply–accumulates each layer does in each
direction, what it keeps for the backward pass, how much memory is in use when, and where it all sits.

Limits: arithmetic of the backward pass other than products, and the optimizer's, isn't counted; of memory,
what PyTorch's tensors take is forecast, not the allocator's reserve, libraries' workspaces or the CUDA
context. Operators without a rule are listed in ``Cost.uncounted``; see
:mod:`convscope.cost.arithmetic.rules` for adding one.
"""

from convscope.core.callable_room import make_callable
from convscope.cost.arithmetic.elementwise import elementwise_rule
from convscope.cost.arithmetic.flops import Gradients, backward_rule, macs_rule
from convscope.cost.arithmetic.rules import OperatorShapes
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.values import Forecast, LiveTensor, TimelinePoint
from convscope.cost.reading import cost, cost_of, describe
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
from convscope.cost.views.sweep import Sweep, SweepPoint, sweep

__all__ = [
    "COLUMNS",
    "Column",
    "Cost",
    "Forecast",
    "Gradients",
    "LiveTensor",
    "ModuleCalls",
    "NetworkCost",
    "OperatorShapes",
    "Refused",
    "Row",
    "RuleOfThumb",
    "Selection",
    "SideBySide",
    "Summary",
    "Sweep",
    "SweepPoint",
    "Table",
    "TimelinePoint",
    "Totals",
    "Uncounted",
    "UnusedParameter",
    "backward_rule",
    "cost",
    "cost_of",
    "describe",
    "elementwise_rule",
    "forecast",
    "macs_rule",
    "rule_of_thumb",
    "side_by_side",
    "sweep",
    "table_of",
]

make_callable(__name__, cost)

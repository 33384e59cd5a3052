"""Several networks' costs beside one another, with ratios to the first.

Each network keeps its own input shape, so a ratio compares the networks as they are used; give one input
shape to compare them on the same images. A network that can't be read is named, and the others stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.cost.table import Cost
from convscope.cost.views.csv_table import csv_text
from convscope.cost.views.summary import SUMMARY_FIELDS, Refused, Summary, summary_cells, summary_of


@dataclass(frozen=True)
class NetworkCost:
    """One network among others.

    Attributes:
        name: what it was called by.
        summary: what it costs.
        ratios: its numbers divided by the first network's, by field of the summary.
    """

    name: str
    summary: Summary
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class SideBySide(Result):
    """Several networks' costs.

    Attributes:
        plan: the training plan in words; ``"inference"`` without one.
        device: whose memory rules the forecasts follow.
        networks: in the order in which they were given.
        refused: those that couldn't be read, and why.
    """

    plan: str
    device: str
    networks: tuple[NetworkCost, ...]
    refused: tuple[Refused, ...]

    def to_csv(self) -> str:
        """Return one line per network, with the fields of :class:`Summary`."""
        rows = ([each.name, *summary_cells(each.summary)] for each in self.networks)
        return csv_text(("network", *SUMMARY_FIELDS), rows)


def side_by_side(costs: Mapping[str, Cost | ConvscopeError]) -> SideBySide:
    """Return several readings beside one another.

    Args:
        costs: each network's reading by its name, or the error that it raised.

    Raises:
        ConvscopeError: none could be read (the first error is raised), nothing was given, or it isn't a
            cost.

    Example:
        >>> from convscope.cost import cost
        >>> from torch import nn
        >>> found = side_by_side({"a": cost(nn.Linear(8, 8), (1, 8)), "b": cost(nn.Linear(8, 16), (1, 8))})
        >>> found.networks[1].ratios["macs"]
        2.0
    """
    read = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
    refused = {name: error for name, error in costs.items() if isinstance(error, ConvscopeError)}
    strange = next((name for name, cost in costs.items() if name not in {**read, **refused}), None)
    if strange is not None:
        raise ConvscopeError(
            f"{strange!r}: an object of type {type(costs[strange]).__name__}",
            "a Cost of each network, by its name",
            "measure it first: {name: cs.cost(model, shape), ...}",
        )
    if not read:
        raise next(iter(refused.values()), ConvscopeError("no networks", "at least one", "name some"))
    summaries = {name: summary_of(cost) for name, cost in read.items()}
    first = next(iter(summaries.values()))
    shown = next(iter(read.values()))
    return SideBySide(
        shown.plan,
        shown.device,
        tuple(NetworkCost(name, summary, summary.ratios(first)) for name, summary in summaries.items()),
        tuple(Refused(name, str(error)) for name, error in refused.items()),
    )

"""The charts of two reports side by side: how both networks learnt."""

from collections.abc import Mapping
from typing import Any

from convscope.report.charts.frame import ACCENT, SECOND, Spec
from convscope.report.charts.one_epoch import accuracy_bars, loss_bars
from convscope.report.charts.report import accuracy_chart, loss_chart

_SIDES = (("pair.curves.0", "first", ACCENT), ("pair.curves.1", "second", SECOND))


def pair_charts(pair: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specifications of the charts that a pair's data allows, by name.

    Args:
        pair: a :class:`~convscope.report.ReportPair` as plain values; it lies at ``pair`` in the page.
    """
    if not pair["curves"]:
        return {}
    sides = list(_SIDES)
    if charts_once(pair):
        return {"accuracy": accuracy_bars(sides, guess=""), "loss": loss_bars(sides)}
    return {"accuracy": accuracy_chart(sides, guess=""), "loss": loss_chart(sides)}


def charts_once(pair: Mapping[str, Any]) -> bool:
    """Whether neither network was trained for more than one epoch."""
    return bool(pair["curves"]) and max(len(curve["epochs"]) for curve in pair["curves"]) == 1

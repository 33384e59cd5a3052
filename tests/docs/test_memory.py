"""The documentation's figures of memory are what convscope computes."""

from pathlib import Path

import pytest

import convscope as cs

PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
MIB = 2**20


def _row(name):
    """The last cell of the table's row that begins with a name."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name}")]
    return line.split("|")[-2].strip()


@pytest.fixture(scope="module")
def alexnet():
    model, inputs = cs.load("alexnet", batch=128)
    return cs.cost(model, inputs)


def test_alexnets_table(alexnet):
    forecast, estimate = alexnet.forecast, alexnet.rule_of_thumb
    assert _row("rule of thumb") == f"{(estimate.activation_bytes + estimate.parameter_bytes) / MIB:,.0f} MiB"
    assert _row("tensors alive") == f"{forecast.tensor_peak_bytes / MIB:,.0f} MiB"
    assert _row("+ two cuBLAS") == f"{forecast.cublas_workspace_bytes / MIB:.1f} MiB"
    assert _row("+ remainders") == f"{forecast.unsplit_bytes / MIB:.2f} MiB"
    assert _row("= allocated") == f"{forecast.allocated_peak_bytes / MIB:,.0f} MiB"
    assert _row("the same if") == f"{forecast.allocated_range_bytes[1] / MIB:,.0f} MiB"
    assert _row("reserved |") == f"{forecast.reserved_peak_bytes / MIB:,.0f} MiB"
    assert forecast.peak_op.startswith("features.relu4#1:")
    assert forecast.peak_phase == "backward"


def test_the_published_network(alexnet):
    model, inputs = cs.load("alexnet", variant="published", batch=128)
    found = cs.cost(model, inputs)
    estimate = found.rule_of_thumb.activation_bytes + found.rule_of_thumb.parameter_bytes
    said = f"{estimate / MIB:,.0f} MiB against {found.forecast.allocated_peak_bytes / MIB:,.0f} MiB"
    assert said in PAGE.replace("\n", " ")


def test_the_figure_is_this_networks(alexnet):
    figure = (Path(__file__).parents[2] / "docs" / "figures" / "alexnet-memory.svg").read_text()
    peak = max(point.allocated_bytes for point in alexnet.forecast.timeline) / MIB
    assert f"MiB in use: {peak:,.1f}" in figure

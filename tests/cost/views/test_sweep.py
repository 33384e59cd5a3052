"""Sweeps: every point is the reading that one would make there; what can't run is listed with its reason."""

import csv
import io

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost import cost, sweep
from convscope.tape import TrainingPlan


def net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def test_over_the_batch_by_hand():
    found = sweep(net(), (1, 3, 9, 9), "batch", (1, 8, 32, 8), TrainingPlan("adamw"))
    assert [point.value for point in found.points] == [1, 8, 32]
    assert [point.summary.macs for point in found.points] == [b * (25 * 4 * 75 + 8) for b in (1, 8, 32)]
    assert {point.summary.params for point in found.points} == {4 * 75 + 4 + 10}
    assert [point.summary.input_shapes for point in found.points][2] == ((32, 3, 9, 9),)
    assert found.plan == "adamw, fp32"
    assert found.refused == ()


def test_every_point_is_the_reading_there():
    point = sweep(net(), (1, 3, 9, 9), "batch", (8,)).points[0].summary
    alone = cost(net(), (8, 3, 9, 9))
    assert point.allocated_peak_bytes == alone.forecast.allocated_peak_bytes
    assert point.saved_bytes == alone.totals.saved_bytes
    assert (point.peak_phase, point.peak_op) == (alone.forecast.peak_phase, alone.forecast.peak_op)


def test_over_the_resolution_with_one_that_is_too_small():
    found = sweep(net(), (2, 3, 9, 9), "resolution", (4, 5, 7))
    assert [(p.value, p.summary.macs) for p in found.points] == [(5, 2 * 308), (7, 2 * (9 * 300 + 8))]
    assert [each.name for each in found.refused] == ["resolution 4"]
    assert "0#1" in found.refused[0].reason or "convolution" in found.refused[0].reason


def test_over_anything_that_a_function_builds():
    def make(width):
        if width > 10:
            raise ValueError("too wide")
        return net(width), (1, 3, 5, 5)

    found = sweep(make, None, "width", (4, 8, 16))
    assert [point.summary.params for point in found.points] == [w * 75 + w + 2 * w + 2 for w in (4, 8)]
    assert "ValueError: too wide" in found.refused[0].reason


def test_inputs_that_are_tensors_keep_their_kind():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, words, scale):
            return self.out(self.words(words).mean(1) * scale)

    inputs = {"words": torch.zeros(1, 5, dtype=torch.long), "scale": torch.ones(1, 4)}
    found = sweep(Two(), inputs, "batch", (2, 6))
    assert [point.summary.macs for point in found.points] == [2 * 8, 6 * 8]


@pytest.mark.parametrize("made", [None, 3, (nn.ReLU(),), ((1, 3), nn.ReLU())])
def test_a_function_that_returns_something_else_is_one_line(made):
    with pytest.raises(ConvscopeError, match=r"the function returned .*the network and its inputs"):
        sweep(lambda value: made, None, "width", (1, 2))


def test_uncounted_operators_are_in_every_summary():
    class Strange(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    summary = sweep(Strange(), (1, 3), "batch", (1, 2), None).points[1].summary
    assert [(each.phase, each.calls) for each in summary.uncounted] == [("forward", 1)]
    assert "bessel_j0" in summary.uncounted[0].op
    assert summary.device == "cuda"


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("batch", (), "no values"),
        ("batch", (0, 1), "whole numbers from 1"),
        ("batch", (1.5,), "whole numbers from 1"),
        ("width", (0.5, -1), "positive numbers"),
        ("width", (1,), "a function that returns"),
    ],
)
def test_bad_values(axis, values, message):
    with pytest.raises(ConvscopeError, match=message):
        sweep(net(), (1, 3, 9, 9), axis, values)


def test_where_nothing_runs_the_reason_is_raised():
    with pytest.raises(ConvscopeError):
        sweep(net(), (1, 3, 9, 9), "resolution", (2, 3))


def test_csv_has_one_line_per_point():
    found = sweep(net(), (1, 3, 9, 9), "batch", (1, 2))
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [(line["swept_batch"], int(line["macs"])) for line in lines] == [("1", 7508), ("2", 15016)]

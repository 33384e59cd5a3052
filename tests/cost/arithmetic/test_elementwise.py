"""Elementwise operations against formulas written out per layer, and what has no rule."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.cost import OperatorShapes, cost, elementwise_rule
from convscope.cost.arithmetic import elementwise as elementwise_module

N, C, H, W = 2, 6, 8, 7
ELEMENTS = N * C * H * W


def _operations(layer, shape=(N, C, H, W), plan=None):
    found = cost(layer, shape, plan)
    assert found.uncounted == ()
    assert found.totals.macs == 0
    return found.totals.elementwise_ops


@pytest.mark.parametrize(
    ("layer", "per_element"),
    [
        (nn.ReLU(), 1), (nn.ReLU(inplace=True), 1), (nn.Sigmoid(), 4), (nn.Tanh(), 1), (nn.GELU(), 5),
        (nn.SiLU(), 5), (nn.ReLU6(), 2), (nn.LeakyReLU(), 2), (nn.Hardswish(), 5), (nn.Softmax(1), 5),
        (nn.BatchNorm2d(C), 4), (nn.BatchNorm2d(C, affine=False), 2), (nn.GroupNorm(3, C), 8),
        (nn.LayerNorm([C, H, W]), 8),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, nn.Module) else str(item),
)  # fmt: skip
def test_per_element(layer, per_element):
    assert _operations(layer) == per_element * ELEMENTS


def test_batch_norm_in_training_also_computes_its_statistics():
    totals = cost(nn.Sequential(nn.BatchNorm2d(C), nn.Flatten()), (N, C, H, W)).rows[0]
    assert totals.elementwise_ops == 8 * ELEMENTS


def test_counting_by_brute_force_where_windows_differ():
    # Every window's elements one by one: output i of o reads inputs floor(i n/o) to ceil((i+1) n/o).
    reads = 0
    for i in range(3):
        for j in range(5):
            rows = range(i * H // 3, -(-(i + 1) * H // 3))
            columns = range(j * W // 5, -(-(j + 1) * W // 5))
            reads += sum(1 for _ in rows for _ in columns)
    assert _operations(nn.AdaptiveAvgPool2d((3, 5))) == N * C * reads


@pytest.mark.parametrize(("layer", "per_output"), [(nn.MaxPool2d(3, 2), 8), (nn.AvgPool2d((2, 3)), 6)])
def test_pools(layer, per_output):
    outputs = layer(torch.zeros(N, C, H, W)).numel()
    assert _operations(layer) == per_output * outputs


@pytest.mark.parametrize(
    "layer",
    [nn.Flatten(), nn.Unflatten(1, (2, 3)), nn.ChannelShuffle(2), nn.UpsamplingNearest2d(scale_factor=2)],
)
def test_views_and_copies_do_no_arithmetic(layer):
    assert _operations(layer) == 0


def test_operators_without_a_rule_are_listed_and_counted_when_given_one(monkeypatch):
    class Bessel(nn.Module):
        def forward(self, x):
            return torch.special.i0(torch.special.i0(x).abs()).abs()

    found = cost(Bessel(), (N, C, H, W), plan=None)
    assert [(item.op, item.calls, item.phase) for item in found.uncounted] == [("i0", 2, "forward")]
    assert found.uncounted[0].address == "self#1:i0.1"

    table = elementwise_module._OPERATIONS
    monkeypatch.setattr(table, "_rules", dict(table._rules))

    @elementwise_rule("i0")
    def bessel(call: OperatorShapes) -> int:
        return 1000

    after = cost(Bessel(), (N, C, H, W), plan=None)
    assert after.uncounted == ()
    assert after.totals.elementwise_ops - found.totals.elementwise_ops == 2000


def test_backward_that_may_hide_products_is_listed():
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return torch.linalg.inv(grad) @ grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return Function.apply(self.layer(x))

    found = cost(Net(), (4, 4))
    assert {item.op for item in found.uncounted} == {"linalg_inv_ex"}
    assert {item.phase for item in found.uncounted} == {"backward"}


def test_elementwise_work_is_never_in_macs():
    class Functional(nn.Module):
        def forward(self, x):
            return F.softmax(F.relu(x) * 2 + x.mean((2, 3), keepdim=True), 1)

    assert _operations(Functional()) == ELEMENTS * (1 + 1 + 1 + 1 + 5)

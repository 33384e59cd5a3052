"""Multiply–accumulates against sums of ones, explicit arithmetic and PyTorch's own counter where it is right.

A product of tensors full of ones sums to the number of its multiply–accumulates (without padding, which the
convention counts although it multiplies with nothing).
"""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convscope.cost import OperatorShapes, backward_rule, cost, macs_rule
from convscope.cost.arithmetic import flops as flops_module
from convscope.tape import TrainingPlan


class Product(nn.Module):
    """An operator on two parameters; a scaled input is added so that the step has one."""

    def __init__(self, function, first, second):
        super().__init__()
        self.function = function
        self.first, self.second = nn.Parameter(torch.ones(first)), nn.Parameter(torch.ones(second))

    def forward(self, x):
        return self.function(self.first * x, self.second * 1)


def _sum(outputs):
    return outputs.sum()


CONVOLUTIONS = {
    "1d": (F.conv1d, (2, 4, 9), (6, 4, 3), {"stride": 2}),
    "2d": (F.conv2d, (2, 3, 7, 9), (5, 3, 3, 2), {"stride": (2, 1)}),
    "2d dilated": (F.conv2d, (2, 3, 7, 9), (5, 3, 3, 2), {"dilation": (2, 3)}),
    "2d groups": (F.conv2d, (2, 6, 7, 5), (4, 3, 3, 3), {"groups": 2}),
    "2d depthwise": (F.conv2d, (3, 8, 6, 6), (16, 1, 3, 3), {"groups": 8}),
    "3d": (F.conv3d, (1, 2, 5, 6, 7), (4, 2, 2, 3, 3), {}),
    "transposed": (F.conv_transpose2d, (2, 4, 5, 3), (4, 6, 3, 2), {"stride": 2}),
    "transposed groups": (F.conv_transpose2d, (2, 4, 5, 3), (4, 3, 3, 2), {"stride": 2, "groups": 2}),
    "unbatched": (F.conv2d, (3, 7, 9), (5, 3, 3, 2), {}),
    "3d transposed groups": (F.conv_transpose3d, (1, 4, 3, 2, 4), (4, 3, 2, 1, 3), {"groups": 2}),
    "1d transposed dilated": (F.conv_transpose1d, (2, 4, 5), (4, 3, 3), {"stride": 2, "dilation": 2}),
    "time first": (lambda x, w: torch.conv_tbc(x, w, w.new_zeros(6)), (9, 2, 4), (3, 4, 6), {}),
}
PRODUCTS = {
    "matmul": (torch.matmul, (4, 5), (5, 3)),
    "batched": (torch.matmul, (2, 4, 5), (2, 5, 3)),
    "broadcast": (torch.matmul, (2, 1, 4, 5), (3, 5, 6)),
    "vector": (torch.mv, (4, 5), (5,)),
    "dot": (torch.dot, (7,), (7,)),
    "linear": (F.linear, (2, 3, 5), (4, 5)),
    "einsum": (lambda a, b: torch.einsum("nchw,oc->nohw", a, b), (2, 3, 4, 5), (6, 3)),
    "addbmm": (lambda a, b: torch.addbmm(a.new_zeros(4, 3), a, b), (2, 4, 5), (2, 5, 3)),
    "baddbmm": (lambda a, b: torch.baddbmm(a.new_zeros(2, 4, 3), a, b), (2, 4, 5), (2, 5, 3)),
}


def _ones_sum(function, first, second):
    return int(function(torch.ones(first), torch.ones(second)).sum())


@pytest.mark.parametrize(
    ("case", "layout"),
    [(case, "contiguous") for case in CONVOLUTIONS]
    + [(case, "channels_last") for case, (_, first, _, _) in CONVOLUTIONS.items() if len(first) == 4],
)
def test_convolutions_and_both_of_their_gradients_equal_sums_of_ones(case, layout):
    function, first, second, settings_ = CONVOLUTIONS[case]
    net = Product(lambda a, b: function(a, b, **settings_), first, second)
    if layout == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    expected = _ones_sum(net.function, first, second)
    totals = cost(net, (1,), TrainingPlan(loss=_sum)).totals
    assert totals.macs == expected
    assert totals.forward_flops == 2 * expected
    # First and second factor are both computed from parameters here, so the operator's mask splits them.
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * expected, 2 * expected)


@pytest.mark.parametrize("case", PRODUCTS)
def test_products_and_their_gradients_equal_sums_of_ones(case):
    function, first, second = PRODUCTS[case]
    expected = _ones_sum(function, first, second)
    totals = cost(Product(function, first, second), (1,), TrainingPlan(loss=_sum)).totals
    assert totals.macs == expected
    if case not in ("vector", "dot"):  # whose gradients are outer products: elementwise
        assert totals.backward_flops == 2 * 2 * expected


def test_deformable_convolution_counts_as_a_convolution(monkeypatch):
    """By operators of the same signature: torchvision's own may not be there."""
    for table in (flops_module._MACS, flops_module._BACKWARD):
        monkeypatch.setattr(table, "_rules", dict(table._rules))
    macs_rule("convscopetest_deform")(flops_module.deformable_convolution)
    backward_rule("convscopetest_deform_backward")(flops_module.deformable_convolution_backward)

    @torch.library.custom_op("convscopetest::deform", mutates_args=())
    def deform(input: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    @torch.library.custom_op("convscopetest::deform_backward", mutates_args=())
    def deform_backward(
        grad: torch.Tensor, input: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    deform.register_fake(lambda x, weight, offset: x.new_empty(len(x), len(weight), 4, 4))
    deform_backward.register_fake(lambda grad, x, weight: (torch.empty_like(x), torch.empty_like(weight)))
    deform.register_autograd(
        lambda context, grad: (*torch.ops.convscopetest.deform_backward(grad, *context.saved_tensors), None),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]),
    )

    class Deformable(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 3, 3, 3))

        def forward(self, x):
            return torch.ops.convscopetest.deform(x, self.weight, x.new_zeros(2, 18, 4, 4))

    found = cost(Deformable(), (2, 6, 6, 6), TrainingPlan(loss=_sum))
    macs = 2 * 4 * 4 * 8 * 3 * 9  # two groups of three channels
    assert found.uncounted == ()
    assert found.totals.macs == macs
    assert (found.totals.backward_input_flops, found.totals.backward_weight_flops) == (2 * macs, 2 * macs)


def test_bilinear_layer_counts_every_term_once():
    net = nn.Bilinear(3, 4, 5, bias=False)
    terms = 2 * 3 * 4 * 5
    totals = cost(net, ((2, 3), (2, 4)), TrainingPlan(loss=_sum)).totals
    assert (totals.macs, totals.backward_weight_flops) == (terms, 2 * terms)
    assert totals.backward_input_flops == 0


def test_frozen_layers_have_no_weight_gradient_and_nothing_below_them_an_input_gradient():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 4 * 3, 2))
    net[0].requires_grad_(False)
    first, second, _, last = cost(net, (2, 3, 8, 7)).rows[:4]
    assert (first.backward_input_flops, first.backward_weight_flops) == (0, 0)
    assert (second.backward_input_flops, second.backward_weight_flops) == (0, second.forward_flops)
    assert (last.backward_input_flops, last.backward_weight_flops) == (2 * last.macs, 2 * last.macs)


def test_attention_counts_scores_and_mixture_and_recomputes_scores_in_backward():
    batch, heads, queries, keys, depth = 2, 3, 5, 7, 4

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q * self.scale, k * self.scale, v * self.scale)

    shapes = ((batch, heads, queries, depth), (batch, heads, keys, depth), (batch, heads, keys, depth))
    scores = _ones_sum(lambda q, k: q @ k.mT, shapes[0], shapes[1])
    totals = cost(Attention(), shapes, TrainingPlan(loss=_sum)).totals
    assert totals.macs == 2 * scores
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * 4 * scores, 0)
    assert totals.recompute_flops == 2 * scores


def test_recurrent_layer_counts_every_step():
    steps, batch, features, hidden = 3, 2, 5, 7
    totals = cost(
        nn.LSTM(features, hidden), (steps, batch, features), TrainingPlan(loss=lambda o: o[0].sum())
    ).totals
    expected = steps * batch * 4 * hidden * (features + hidden)
    assert totals.macs == expected
    assert totals.backward_weight_flops == 2 * expected


layer = st.tuples(
    st.sampled_from([1, 2, 3]),  # groups
    st.integers(1, 2),  # output channels of a group
    st.tuples(st.integers(1, 3), st.integers(1, 3)),  # kernel
    st.tuples(st.integers(1, 2), st.integers(1, 2)),  # stride
    st.integers(0, 1),  # padding
    st.integers(1, 2),  # dilation
    st.booleans(),  # bias
)


@settings(max_examples=25, deadline=None)
@given(st.lists(layer, min_size=1, max_size=3), st.integers(1, 3), st.integers(9, 14), st.integers(9, 14))
def test_random_networks_equal_explicit_arithmetic(layers, batch, height, width):
    modules, channels, macs, params, size = [], 6, 0, 0, [height, width]
    for groups, per_group, kernel, stride, padding, dilation, bias in layers:
        out = 6 * per_group
        reach = [dilation * (k - 1) + 1 for k in kernel]
        if any(side + 2 * padding < r for side, r in zip(size, reach)):
            break
        size = [(side + 2 * padding - r) // s + 1 for side, r, s in zip(size, reach, stride)]
        macs += batch * size[0] * size[1] * out * channels // groups * kernel[0] * kernel[1]
        params += out * channels // groups * kernel[0] * kernel[1] + out * bias
        modules += [nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias), nn.ReLU()]
        channels = out
    features = channels * size[0] * size[1]
    found = cost(nn.Sequential(*modules, nn.Flatten(), nn.Linear(features, 3)), (batch, 6, height, width))
    assert found.totals.macs == macs + batch * features * 3
    assert found.totals.params == params + features * 3 + 3


def test_agrees_with_pytorchs_counter_without_groups():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2),
        nn.Conv2d(6, 4, 3, stride=2, dilation=2), nn.Flatten(2), nn.Linear(30, 7, bias=False), nn.Flatten(),
        nn.Linear(28, 5),
    )  # fmt: skip
    x = torch.randn(3, 3, 8, 7)
    with FlopCounterMode(display=False) as forward:
        out = net(x)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    totals = cost(net, x).totals
    assert totals.forward_flops == forward.get_total_flops()
    assert totals.backward_flops == backward.get_total_flops()


def test_users_add_rules_for_their_operators(monkeypatch):
    monkeypatch.setattr(flops_module._MACS, "_rules", dict(flops_module._MACS._rules))
    monkeypatch.setattr(flops_module._BACKWARD, "_rules", dict(flops_module._BACKWARD._rules))
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = cost(torch.nn.Unfold(3), (1, 2, 5, 5), plan=None).totals.macs

    @macs_rule("im2col")
    def unfold(call: OperatorShapes) -> int:
        return 7 * call.num_outputs

    after = cost(torch.nn.Unfold(3), (1, 2, 5, 5), plan=None).totals.macs
    assert (before, after) == (0, 7 * 18 * 9)
    assert cost(net, (1, 3, 5, 5)).totals.macs == 4 * 27 * 9

"""Attention under every name that it has, against explicit arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.cost import cost
from convscope.tape import TrainingPlan

aten = torch.ops.aten
BATCH, HEADS, QUERIES, KEYS, DEPTH = 2, 3, 5, 7, 8
SCORES = BATCH * HEADS * QUERIES * KEYS * DEPTH  # values are as deep as keys: the mixture costs as much


def _positions_first(function):
    """Attention for (batch, positions, heads, depth) on tensors with heads before positions."""
    return lambda q, k, v: function(*(x.transpose(1, 2) for x in (q, k, v)))[0].transpose(1, 2)


FUSED = {
    "chosen by PyTorch": F.scaled_dot_product_attention,
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "masked": lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.ones(QUERIES, KEYS, dtype=torch.bool)
    ),
    "flash": lambda q, k, v: aten._scaled_dot_product_flash_attention(q, k, v)[0],
    "flash on the CPU": lambda q, k, v: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0],
    "efficient": lambda q, k, v: aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[0],
    "cudnn": lambda q, k, v: aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[0],
    "other devices'": lambda q, k, v: aten._scaled_dot_product_fused_attention_overrideable(q, k, v)[0],
    "flash, bare": _positions_first(
        lambda q, k, v: aten._flash_attention_forward(q, k, v, None, None, QUERIES, KEYS, 0.0, False, False)
    ),
    "efficient, bare": _positions_first(
        lambda q, k, v: aten._efficient_attention_forward(q, k, v, None, None, None, None, None, 0.0, 0, True)
    ),
}
WRITTEN_OUT = {
    "math": lambda q, k, v: aten._scaled_dot_product_attention_math(q, k, v)[0],
    "products": lambda q, k, v: (q @ k.mT / DEPTH**0.5).softmax(-1) @ v,
    "einsum": lambda q, k, v: torch.einsum(
        "bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1), v
    ),
}


class Attention(nn.Module):
    """Attention between inputs that need gradients: each is scaled by a parameter."""

    def __init__(self, function):
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.ones(3))

    def forward(self, q, k, v):
        return self.function(*(scale * x for scale, x in zip(self.scale, (q, k, v))))


def _totals(function, plan=None):
    shapes = ((BATCH, HEADS, QUERIES, DEPTH), *[(BATCH, HEADS, KEYS, DEPTH)] * 2)
    found = cost(Attention(function), shapes, plan or TrainingPlan(loss=lambda out: out.sum()))
    assert found.uncounted == ()
    return found.totals


@pytest.mark.parametrize("name", FUSED)
def test_fused_attention_forward_and_backward(name):
    totals = _totals(FUSED[name])
    assert totals.macs == 2 * SCORES
    # dQ, dK, dV and the gradient of the probabilities; the scores are computed once more for them.
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * 4 * SCORES, 0)
    assert totals.recompute_flops == 2 * SCORES


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_written_out_attention_costs_the_same_without_recomputing(name):
    totals = _totals(WRITTEN_OUT[name])
    assert totals.macs == 2 * SCORES
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * 4 * SCORES, 0)
    assert totals.recompute_flops == 0


def test_fused_attentions_softmax_is_elementwise_work():
    pairs = BATCH * HEADS * QUERIES * KEYS
    scaling = 2 * BATCH * HEADS * KEYS * DEPTH + BATCH * HEADS * QUERIES * DEPTH  # of this file's module
    for name, per_score in (("flash", 6), ("efficient, bare", 6), ("masked", 7)):
        totals = _totals(FUSED[name])
        assert (
            totals.elementwise_ops - scaling - BATCH * HEADS * QUERIES * DEPTH == per_score * pairs
        )  # the loss


def test_values_deeper_than_keys():
    class Deeper(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    shapes = ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 16))
    assert cost(Deeper(), shapes, plan=None).totals.macs == 2 * 3 * 5 * 7 * (8 + 16)


@pytest.mark.parametrize(
    "function", [F.scaled_dot_product_attention, WRITTEN_OUT["math"]], ids=["fused", "math"]
)
def test_queries_made_from_parameters_alone_are_a_weight(function):
    class Pooling(nn.Module):
        """Attention pooling: the query is learnt."""

        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.ones(1, HEADS, 1, DEPTH))
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            x = x * self.scale
            return function(self.query.expand(len(x), -1, -1, -1), x, x)

    plan = TrainingPlan(loss=lambda out: out.sum())
    totals = cost(Pooling(), (BATCH, HEADS, KEYS, DEPTH), plan).totals
    each = BATCH * HEADS * KEYS * DEPTH
    assert totals.macs == 2 * each
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * 3 * each, 2 * each)


WIDTH = 12


def _multi_head_macs(queries, keys):
    projections = BATCH * WIDTH * WIDTH * (2 * queries + 2 * keys)
    return projections, 2 * BATCH * queries * keys * WIDTH


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 6}, {"add_zero_attn": True}])
def test_multi_head_attention_between_two_sequences(options):
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True, **options)

        def forward(self, query, key, value):
            return self.attention(query, key, value)[0]

    key, value = options.get("kdim", WIDTH), options.get("vdim", WIDTH)
    shapes = ((BATCH, QUERIES, WIDTH), (BATCH, KEYS, key), (BATCH, KEYS, value))
    projections = BATCH * WIDTH * (2 * QUERIES * WIDTH + KEYS * (key + value))
    attention = 2 * BATCH * QUERIES * (KEYS + ("add_zero_attn" in options)) * WIDTH
    found = cost(Cross(), shapes)
    assert found.uncounted == ()
    assert found.totals.macs == projections + attention
    assert found.totals.backward_weight_flops == 2 * projections
    last = BATCH * QUERIES * WIDTH * WIDTH  # the inputs themselves need no gradients
    assert found.totals.backward_input_flops == 2 * (2 * attention + last)


@pytest.mark.parametrize("plan", [TrainingPlan(), None], ids=["training", "evaluation"])
def test_self_attention_and_encoder_layers_are_counted_in_training_and_by_the_fast_path_of_evaluation(plan):
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    layer = nn.TransformerEncoderLayer(WIDTH, 3, 20, batch_first=True)
    expected = sum(_multi_head_macs(KEYS, KEYS))
    perceptron = BATCH * KEYS * 2 * WIDTH * 20
    for net, macs in ((SelfAttention(), expected), (layer, expected + perceptron)):
        found = cost(net, (BATCH, KEYS, WIDTH), plan)
        assert found.uncounted == ()
        assert found.totals.macs == macs


class FastPath(nn.Module):
    """The operators that evaluation in inference mode may run in place of whole modules."""

    def __init__(self, whole_layer):
        super().__init__()
        self.whole_layer, self.layer = whole_layer, nn.TransformerEncoderLayer(WIDTH, 3, 20, batch_first=True)

    def forward(self, x):
        layer, attention = self.layer, self.layer.self_attn
        weights = (attention.in_proj_weight, attention.in_proj_bias, *attention.out_proj.parameters())
        if not self.whole_layer:
            return torch._native_multi_head_attention(x, x, x, WIDTH, 3, *weights)[0]
        norms = (*layer.norm1.parameters(), *layer.norm2.parameters())
        perceptron = (*layer.linear1.parameters(), *layer.linear2.parameters())
        return torch._transformer_encoder_layer_fwd(
            x, WIDTH, 3, *weights, False, False, 1e-5, *norms, *perceptron
        )


@pytest.mark.parametrize("whole_layer", [False, True])
def test_fused_modules_are_counted(whole_layer):
    found = cost(FastPath(whole_layer), (BATCH, KEYS, WIDTH), plan=None)
    softmax, perceptron = 6 * BATCH * 3 * KEYS * KEYS, BATCH * KEYS * 2 * WIDTH * 20
    elementwise = BATCH * KEYS * (WIDTH * (8 + 8 + 1 + 1) + 20)
    assert found.uncounted == ()
    assert found.totals.macs == sum(_multi_head_macs(KEYS, KEYS)) + perceptron * whole_layer
    assert found.totals.elementwise_ops == softmax + elementwise * whole_layer

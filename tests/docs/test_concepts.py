"""The formulas of docs/flops.md, memory.md and sight.md: convscope against a count of the test's own."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convscope as cs

DOCS = Path(__file__).parents[2] / "docs"
QUOTED = {}


def formula(page, number, text):
    """Register a formula that the test below it evaluates."""

    def quoting(test):
        QUOTED[page, number] = " ".join(text.split())
        return test

    return quoting


@formula("flops", 1, r"\mathrm{MACs} = N\,C_o\,\frac{C_i}{g} \prod_d k_d\,o_d")
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolutions_macs(groups):
    layer, x = nn.Conv2d(4, 6, (3, 2), stride=2, groups=groups), torch.randn(2, 4, 9, 8)
    n, o_h, o_w = 2, 4, 4
    counted = 0
    for _ in range(n * 6 * o_h * o_w):  # each output element
        for _ in range(4 // groups * 3 * 2):  # each product of its sum
            counted += 1
    assert layer(x).shape == (n, 6, o_h, o_w)
    assert counted == n * 6 * (4 // groups) * (3 * o_h) * (2 * o_w)
    assert cs.cost(layer, tuple(x.shape), plan=None).totals.macs == counted


@formula(
    "flops",
    2,
    r"\mathrm{MACs} = N\,I\,O, \qquad \mathrm{MACs} = N\,H\,Q\,K\,(d_k + d_v)",
)
def test_a_linear_layers_and_attentions_macs():
    class Attention(nn.Module):
        def forward(self, query, key, value):
            return F.scaled_dot_product_attention(query, key, value)

    assert cs.cost(nn.Linear(5, 7), (3, 5), plan=None).totals.macs == 3 * 5 * 7
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8)
    macs = cs.cost(Attention(), (query, key, key), plan=None).totals.macs
    assert macs == 2 * 3 * 4 * 6 * (8 + 8)


@formula(
    "flops",
    3,
    r"""\mathrm{FLOPs} = 2 \left( \sum_{\text{rows}} \mathrm{MACs} + \sum_{m_x} \mathrm{MACs}
    + \sum_{m_w} \mathrm{MACs} \right)""",
)
def test_a_steps_flops():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 2))
    first, second, last = 2 * 4 * 27 * 4 * 4, 2 * 5 * 36 * 2 * 2, 2 * 20 * 2
    totals = cs.cost(network, (2, 3, 6, 6)).totals
    assert totals.step_flops == 2 * ((first + second + last) + (second + last) + (first + second + last))
    assert totals.step_flops < 3 * totals.forward_flops


@formula("memory", 1, r"2 \cdot 4\,A + k \cdot 4\,P")
@pytest.mark.parametrize(("optimizer", "k"), [("sgd", 2), ("sgd-momentum", 3), ("adam", 4)])
def test_the_rule_of_thumb(optimizer, k):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    estimate = cs.cost(network, (5, 3, 6, 6), cs.TrainingPlan(optimizer)).rule_of_thumb
    outputs, parameters = 5 * (4 * 4 * 4 + 4 * 2 * 2 + 2), 4 * 27 + 4 + 32 + 2
    assert estimate.activation_bytes + estimate.parameter_bytes == 2 * 4 * outputs + k * 4 * parameters


@formula(
    "memory",
    2,
    r"""\max_t \sum_{s\,:\,\mathrm{born}(s) \le t < \mathrm{freed}(s)}
    512 \left\lceil \frac{b_s}{512} \right\rceil""",
)
def test_the_largest_sum_of_storages_alive():
    widths = [33, 700, 900, 20]
    layers = [nn.Linear(i, o, bias=False) for i, o in pairwise(widths)]
    rows = 6
    weights = [512 * math.ceil(4 * i * o / 512) for i, o in pairwise(widths)]
    values = [512 * math.ceil(4 * rows * width / 512) for width in widths]
    always = sum(weights) + values[0]  # the caller holds the images
    sums = [always + values[1], always + values[1] + values[2], always + values[2] + values[3]]
    forecast = cs.cost(nn.Sequential(*layers), (rows, 33), plan=None).forecast
    assert forecast.tensor_peak_bytes == max(sums) == sums[1]


@formula(
    "sight",
    1,
    r"""R_\mathrm{deconvnet} = \max(g, 0), \qquad R_\mathrm{gated} = \max(g, 0) \cdot \mathrm{gate}(x), \qquad
    R_\mathrm{gradient} = \varphi'(x)\,g""",
)
@pytest.mark.parametrize("rule", ["deconvnet", "gated", "gradient"])
def test_the_rules(rule):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    image = torch.rand(3, 10, 10)
    with torch.no_grad():
        hidden = network[0](image[None])
        seed = torch.zeros(1, 4, 6, 6)
        seed[0, 2].view(-1)[network(image[None])[0, 2].argmax()] = 1
        g, opened = F.conv_transpose2d(seed, network[2].weight), (hidden > 0).float()
        signals = {"deconvnet": g.clamp(min=0), "gated": g.clamp(min=0) * opened, "gradient": opened * g}
        by_hand = F.conv_transpose2d(signals[rule], network[0].weight)[0].permute(1, 2, 0)
    view = cs.project(network, image, layer="2", unit=2, rule=rule)
    torch.testing.assert_close(torch.as_tensor(view.image), by_hand, rtol=1e-5, atol=1e-6)


@formula("sight", 2, r"r_l = r_{l-1} + (k_l - 1)\,j_{l-1}, \qquad j_l = s_l\,j_{l-1}")
def test_receptive_fields():
    steps = [(7, 2), (3, 2), (5, 1), (3, 3)]
    network = nn.Sequential(*(nn.Conv2d(2, 2, k, s) for k, s in steps))
    rows, seen, jump = cs.cost(network, (1, 2, 99, 99), plan=None).rows, 1, 1
    for row, (k, s) in zip(rows, steps):
        seen, jump = seen + (k - 1) * jump, s * jump
        assert row.receptive_field.size == (seen, seen)


@formula(
    "sight",
    3,
    r"f' = f - \frac{\mathrm{round}(f\,s)}{s}, \qquad \left| f' \right| \le \frac{1}{2s}",
)
@pytest.mark.parametrize("s", [2, 4])
@pytest.mark.parametrize("f", [0.05, 0.2, 0.3, 0.45])
def test_aliasing(f, s):
    kept = torch.arange(0, 400, s, dtype=torch.float64)
    alias = f - round(f * s) / s
    assert abs(alias) <= 1 / (2 * s)
    torch.testing.assert_close((2 * torch.pi * f * kept).cos(), (2 * torch.pi * alias * kept).cos())
    assert (alias != f) is (f > 1 / (2 * s))


def test_every_formula_of_the_pages_is_quoted_here():
    found = {}
    for page in ("flops", "memory", "sight"):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```math\n(.*?) \\tag\{(\d+)\}\n```", text, re.DOTALL)
        assert len(blocks) == text.count("```math")
        found |= {(page, int(number)): " ".join(block.split()) for block, number in blocks}
    assert found == QUOTED

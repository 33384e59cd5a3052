"""``project`` against the oracle, and the oracle against closed forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import project
from sight.oracle import layers, projected
from sight.oracle_gates import GATES, NoRuleError
from sight.oracle_networks import GATED, REFUSED, TWINS, WITH_RELU, Does
from sight.unjudged import unjudged

RULES = ("deconvnet", "guided", "gated", "gradient")
UNITS = dict(zip(RULES, ((4, (2, 0)), (0, None), (2, (1, 2)), (1, None))))
NETWORKS = WITH_RELU | GATED | REFUSED
TOLERANCE = 1e-12  # of the projection's largest value


@pytest.fixture(autouse=True)
def _without_scores():
    with unjudged():
        yield


def _made(name):
    net = NETWORKS[name]().double().eval()
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.normal_(generator=generator)
            module.running_var.uniform_(0.1, 1.0, generator=generator)
    return net, torch.randn(3, 17, 14, dtype=torch.float64, generator=generator)


def difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_network_is_projected_as_by_the_oracle(name):
    """Where the oracle has no rule, neither has convscope."""
    net, image = _made(name)
    last = str(len(net) - 1)
    passed = {"gradient"} | ({"gated"} if name not in REFUSED else set())
    passed |= {"deconvnet", "guided"} if name in WITH_RELU else set()
    for rule in RULES:
        unit, position = UNITS[rule]
        answer = layers(net, image, [last], rule, gates=("Still",))[last]
        if rule not in passed:
            with pytest.raises(NoRuleError):
                answer.project(unit, position)
            with pytest.raises(ConvscopeError, match="rule"):
                project(net, image, last, unit, rule=rule, position=position)
            continue
        expected = answer.project(unit, position).permute(1, 2, 0)
        found = project(net, image, last, unit, rule=rule, position=position)
        assert expected.abs().max() > 0
        assert found.position == (position or answer.strongest(unit))
        assert difference(found.image, expected) <= TOLERANCE, rule


def test_layers_below_the_operator_in_question_have_every_rule():
    net, image = _made("product")
    for rule in RULES:
        found = project(net, image, "0", 3, rule=rule, position=(0, 5))
        assert difference(found.image, projected(net, image, "0", 3, rule, position=(0, 5))) <= TOLERANCE


@pytest.mark.parametrize("name", TWINS)
def test_an_activation_that_is_written_out_is_the_same(name):
    written, named = TWINS[name]
    net, image = _made("module")
    net[2] = named
    expected = {rule: projected(net, image, "3", 1, rule, position=(1, 2)) for rule in ("gated", "gradient")}
    net[2] = Does(lambda _, x: written(x))
    for rule in RULES:
        if rule in expected:
            found = project(net, image, "3", 1, rule=rule, position=(1, 2))
            assert difference(found.image, expected[rule]) <= TOLERANCE, rule
        else:
            with pytest.raises(ConvscopeError, match="rule"):
                project(net, image, "3", 1, rule=rule, position=(1, 2))


# The oracle against closed forms ---------------------------------------------------------------------

ACTIVATIONS = {
    "relu": (F.relu, ()), "silu": (F.silu, ()), "gelu": (F.gelu, ()), "hardswish": (F.hardswish, ()),
    "mish": (F.mish, ()), "relu6": (F.relu6, ()), "hardtanh": (F.hardtanh, (-0.4, 0.6)),
    "leaky_relu": (F.leaky_relu, (0.1,)), "prelu": (F.prelu, (torch.tensor([0.3]).double(),)),
    "rrelu": (F.rrelu, ()), "elu": (F.elu, (0.7,)), "celu": (F.celu, (0.7,)), "selu": (F.selu, ()),
    "threshold": (F.threshold, (0.2, 0.0)), "tanh": (torch.tanh, ()), "softsign": (F.softsign, ()),
    "hardshrink": (F.hardshrink, ()), "softshrink": (F.softshrink, ()),
}  # fmt: skip


def test_every_gate_is_the_activation_over_its_input():
    x = torch.cat([torch.linspace(-9, 9, 181), torch.tensor([1e-9, -1e-9])]).double()
    x = x[x != 0]
    assert set(ACTIVATIONS) == {"relu", *GATES}
    for name, gate in GATES.items():
        function, options = ACTIVATIONS[name]
        torch.testing.assert_close(gate(x, *options) * x, function(x, *options), rtol=1e-13, atol=1e-15)
    tanh_form = GATES["gelu"](x, approximate="tanh") * x
    torch.testing.assert_close(tanh_form, F.gelu(x, approximate="tanh"), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_hidden_layer_in_closed_form(name):
    """W₁ᵀ (gate ∘ max(w₂, 0)), with matrices."""
    function, options = ACTIVATIONS[name]

    class Perceptron(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 9).double(), nn.Linear(9, 4).double()

        def forward(self, x):
            return self.two(function(self.one(x.flatten(1)), *options))

    net, image = Perceptron(), torch.randn(1, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        hidden = net.one(image.reshape(1, -1))[0]
        gate = function(hidden, *options) / hidden
    above = net.two.weight[2].detach().clamp(min=0)
    expected = {"gated": gate * above, "guided": (hidden > 0) * above, "deconvnet": above}
    for rule, signal in expected.items():
        if name == "relu" or rule == "gated":
            found = projected(net, image, "two", 2, rule)
            by_hand = (net.one.weight.detach().T @ signal).reshape(1, 2, 3).permute(1, 2, 0)
            torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-15)
        else:
            with pytest.raises(NoRuleError, match=name.replace("relu6", "relu6|hardtanh")):
                projected(net, image, "two", 2, rule)


def test_attention_and_layer_norm_in_closed_form():
    """The weights of attention are a matrix, a layer norm a scale: a linear map of the value path."""
    net, image = _made("attention")
    x = torch.relu(net[:2](image[None])).detach()
    _, c, h, w = x.shape
    query, key, _ = net[2].qkv(x).reshape(3, 2, c // 2, h * w).detach().unbind(0)
    weights = torch.softmax(torch.einsum("hcq,hck->hqk", query, key) / 2, -1)
    signal = torch.autograd.functional.vjp(net[3], x, _one_hot(net, image, 1, (2, 3)))[1]
    heads = signal.reshape(2, c // 2, h * w)
    to_value = torch.einsum("hqk,hcq->hck", weights, heads).reshape(c, h * w)
    value_weight = net[2].qkv.weight[2 * c :, :, 0, 0].detach()
    below = (signal + (value_weight.T @ to_value).reshape(x.shape)).clamp(min=0)
    expected = torch.autograd.functional.vjp(net[:2], image[None], below)[1][0].permute(1, 2, 0)
    found = projected(net, image, "3", 1, "deconvnet", position=(2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)

    net, image = _made("layer norm")
    before = net[:2](image[None]).detach()
    scale = 1 / (before.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    signal = torch.autograd.functional.vjp(net[3], before, _one_hot(net, image, 1, (2, 3)))[1]
    expected = torch.autograd.functional.vjp(net[:2], image[None], signal.clamp(min=0) * scale)[1][0]
    found = projected(net, image, "3", 1, "deconvnet", position=(2, 3))
    torch.testing.assert_close(found, expected.permute(1, 2, 0), rtol=1e-11, atol=1e-13)


def _one_hot(net, image, unit, position):
    seed = torch.zeros_like(net(image[None]))
    seed[(0, unit, *position)] = 1
    return seed


def test_the_oracle_refuses_another_forward_and_gives_the_network_back():
    net, image = _made("squeeze and excitation")
    net.train()
    net[0].weight.requires_grad_(False)
    before = [(p.requires_grad, p.clone()) for p in net.parameters()]
    layers(net, image, ["3"], "gated")
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == [flag for flag, _ in before]
    assert all(torch.equal(p, kept) for p, (_, kept) in zip(net.parameters(), before))
    assert not any(module._forward_hooks for module in net.modules())

    class Random(nn.Module):
        def forward(self, x):
            return x + torch.rand(())

    with pytest.raises(AssertionError, match="another forward"):
        layers(nn.Sequential(nn.Conv2d(3, 2, 3), Random()).double(), image, ["0"], "gated")

"""Weights that are computed in every run: the folded network against the one it was made from, in float64."""

import copy

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils import weight_norm as hooked_weight_norm

from convscope.fold import fold
from fold.layers.computed import LAYERS, Masked, same, standardised
from fold.nets import IMAGE, conv

pytestmark = pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
REMEDY = "materialise=True (--materialise): the computed weights become plain parameters"


@pytest.fixture(params=LAYERS)
def case(request, randomised):
    """A network of a layer and a batch norm, the shape of its input, and the class that the layer becomes."""
    build, norm, shape, becomes = LAYERS[request.param]
    return randomised(nn.Sequential(build(), copy.deepcopy(norm), nn.Tanh())).double(), shape, becomes


def test_computed_weights_fold_on_request(case):
    net, shape, becomes = case
    kept = fold(net, shape)
    assert [(entry.verdict, entry.remedy) for entry in kept.ledger.entries] == [("kept", REMEDY)]
    assert type(kept.model[0]) is type(net[0])
    folded = fold(net, shape, materialise=True)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "0#1")]
    assert type(folded.model[0]) is becomes
    assert dict(folded.model[0].named_parameters()).keys() == {"weight", "bias"}
    same(net, folded.model, shape)


def test_the_model_computes_its_weights_as_before(case):
    """Copies of parametrised modules share their class; what is done to one mustn't reach the other."""
    net, shape, _ = case
    names, kind = list(net.state_dict()), type(net[0])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        y = net(x)
        fold(net, shape, materialise=True)
        assert torch.equal(net(x), y)
    assert type(net[0]) is kind
    assert list(net.state_dict()) == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    weights = [parameter for parameter in net[0].parameters() if parameter.dim() > 1]
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in weights)


def test_folded_network_scripts_exports_and_copies(case):
    net, shape, _ = case
    folded = fold(net, shape, materialise=True).model
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        same(folded, copy.deepcopy(folded), shape, 0)
        assert torch.allclose(torch.export.export(folded, (x,)).module()(x), folded(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["standardised, same", "scaled, same"])
def test_padding_that_depends_on_the_size_still_does(name, randomised):
    build, norm, shape, _ = LAYERS[name]
    net = randomised(nn.Sequential(build(), copy.deepcopy(norm))).double()
    folded = fold(net, shape, materialise=True).model
    for high in range(5, 10):
        for wide in range(5, 10):
            same(net, folded, (2, 3, high, wide))


@pytest.mark.parametrize(
    "build",
    [
        lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        lambda: hooked_weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: hooked_spectral_norm(nn.Conv2d(3, 4, 3)),
        lambda: Masked(),
        lambda: StdConv2d(3, 4, 3, padding=0),
    ],
)
def test_batch_norm_before_a_computed_weight_folds(build, randomised):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), build(), nn.Tanh())).double()
    folded = fold(net, IMAGE, materialise=True)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "2#1")]
    same(net, folded.model, IMAGE)


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("build", [standardised, lambda: parametrizations.weight_norm(conv())])
def test_computed_weights_before_a_border(build, border, randomised):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), build(), nn.Tanh())).double()
    folded = fold(net, IMAGE, materialise=True, border=border)
    assert folded.ledger.folded == 1
    assert isinstance(folded.model[2], nn.Conv2d)
    same(net, folded.model, IMAGE)


def test_numbers_are_computed_wide_and_cast_once(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold(net, IMAGE, materialise=True).model
    weight = net[0].weight.detach().double().reshape(4, -1)
    mean, var = weight.mean(1, keepdim=True), weight.var(1, unbiased=False, keepdim=True)
    scale = net[1].weight.double() / (net[1].running_var.double() + net[1].eps).sqrt()
    expected = (scale[:, None] * (weight - mean) / (var + net[0].eps).sqrt()).reshape(4, 3, 3, 3)
    assert torch.equal(folded[0].weight, expected.float())


def test_only_layers_that_take_a_batch_norm_in_become_plain(randomised):
    net = randomised(
        nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), StdConv2d(4, 4, 3), nn.Tanh())
    )
    folded = fold(net, IMAGE, materialise=True).model
    assert [type(folded[0]), type(folded[3])] == [nn.Conv2d, StdConv2d]


def test_parameters_that_do_not_learn_still_do_not(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)))
    net[0].requires_grad_(False)
    assert not any(p.requires_grad for p in fold(net, IMAGE, materialise=True).model[0].parameters())
    net = randomised(nn.Sequential(parametrizations.weight_norm(conv()), nn.BatchNorm2d(4)))
    net[0].requires_grad_(False)
    assert not any(p.requires_grad for p in fold(net, IMAGE, materialise=True).model[0].parameters())


def test_no_random_numbers_are_drawn(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    state = torch.get_rng_state()
    fold(net, IMAGE, materialise=True)
    assert torch.equal(torch.get_rng_state(), state)

"""A whole network's batch norms by kernels: what is fused, what isn't and why, and nothing else changes."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.norm.fast.network import FastLayer

SHAPE = (16, 3, 32, 32)


class Block(nn.Module):
    """A residual block with one activation module for all, as torchvision's have it."""

    def __init__(self, width=24):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(24)

    def forward(self, x):
        return F.relu(self.bn(x))


class Both(nn.Module):
    """Somebody else reads what the norm returns, too."""

    def __init__(self):
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(24), nn.ReLU()

    def forward(self, x):
        y = self.bn(x)
        return self.act(y) + y


def net():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU6(inplace=True), Block(), Functional(), Both(),
        nn.BatchNorm2d(24, momentum=None), nn.LeakyReLU(0.2), nn.BatchNorm2d(24, affine=False), nn.SiLU(),
        nn.BatchNorm2d(24, track_running_stats=False),
    )  # fmt: skip


def step(model, images):
    images = images.clone().requires_grad_()
    loss = model(images).square().mean()
    loss.backward()
    return [loss.detach(), images.grad, *(p.grad for p in model.parameters())]


@pytest.fixture
def images():
    return torch.randn(SHAPE)


def test_what_is_computed_on_the_way_and_why_the_rest_is_not(images):
    layers = cs.norm.fast(net(), SHAPE).layers
    assert {layer.path: layer.activation for layer in layers} == {
        "1": "2", "3.bn1": "3.relu", "3.bn2": None, "4.bn": None, "5.bn": None,
        "6": "7", "8": None, "10": None,
    }  # fmt: skip
    reasons = {layer.path: layer.reason for layer in layers}
    assert reasons["3.bn2"] == "3#1:add.1 reads its result"
    assert reasons["4.bn"] == "4#1:relu.1 reads its result"
    assert reasons["5.bn"].startswith("5.act#1:relu.1 reads its result, among others")
    assert reasons["8"] == "kernels don't compute 9 (SiLU)"
    assert reasons["10"] == "the network returns its result"
    assert reasons["1"] == reasons["6"] == ""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_loss_gradients_and_buffers_are_those_of_float64_as_nearly_as_without(images, layout):
    plain = net().train().to(memory_format=layout)
    images = images.to(memory_format=layout)
    made_fast, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    handle = cs.norm.fast(made_fast, SHAPE)
    with cs.norm.kernels(enabled=True):
        found = step(made_fast, images)
    for got, peer, wanted in zip(found, step(plain, images), step(exact, images.double()), strict=True):
        scale = wanted.abs().max() + 1e-3  # a bias before a norm has no gradient but rounding
        assert (got - wanted).abs().max() <= 3 * (peer - wanted).abs().max() + 2e-5 * scale
    for (name, got), wanted in zip(made_fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5, msg=name)
    handle.undo()


def test_kernels_run_and_the_activation_passes_on_what_it_gets(images, monkeypatch):
    given = []
    made_fast = cs.norm.fast(model := net(), SHAPE) and model
    original = cs.norm.fast.__globals__["batch_norm"]

    def watched(x, weight, bias, eps, shape):
        given.append(tuple(shape))
        return original(x, weight, bias, eps, shape)

    monkeypatch.setitem(cs.norm.fast.__globals__, "batch_norm", watched)
    monkeypatch.setattr(F, "hardtanh", None)  # the ReLU6 isn't called
    made_fast(images)
    assert given[0] == (1.0, 0.0, 6.0)
    assert len(given) == 8


def test_undone_it_is_as_it_was(images):
    model = net()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    with cs.norm.fast(model, SHAPE):
        assert "forward" in vars(model[1])
    for name, module in model.named_modules():
        assert dict(vars(module)) == before[name]


def test_undone_in_any_order(images):
    model = net()
    first, second = cs.norm.fast(model, SHAPE), cs.norm.fast(model, SHAPE)
    first.undo()
    step(model, images)
    second.undo()
    step(model, images)


def test_copies_are_fast_too_and_their_own(images):
    model = net()
    cs.norm.fast(model, SHAPE)
    other = copy.deepcopy(model)
    assert vars(other[1])["forward"].module is other[1]
    held = io.BytesIO()
    torch.save(model.state_dict(), held)
    step(other, images)
    assert model[1].num_batches_tracked == 0


def test_at_test_time_and_switched_off_it_is_the_network_itself(images):
    model = net()
    plain = copy.deepcopy(model)
    cs.norm.fast(model, SHAPE)
    running = slice(10)  # the last one has no running statistics
    assert torch.equal(model.eval()[running](images), plain.eval()[running](images))
    with cs.norm.kernels(enabled=False):
        for got, wanted in zip(step(model.train(), images), step(plain.train(), images), strict=True):
            assert torch.equal(got, wanted)


def test_a_hook_on_the_norm_sees_what_the_norm_returns(images):
    model = net()
    cs.norm.fast(model, SHAPE)
    seen = []
    model[1].register_forward_hook(lambda module, args, result: seen.append(result.detach().clone()))
    model(images)
    assert seen[0].min() < 0


def test_recorded_folded_and_counted_it_is_the_network_itself():
    plain, model = net(), net()
    model.load_state_dict(plain.state_dict())
    cs.norm.fast(model, SHAPE)
    ours, theirs = cs.cost(model, SHAPE), cs.cost(plain, SHAPE)
    assert ours.to_dict() == theirs.to_dict()
    assert str(cs.fold(model.eval(), SHAPE)) == str(cs.fold(plain.eval(), SHAPE))


def test_without_inputs_norms_alone():
    layers = cs.norm.fast(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())).layers
    assert layers == (FastLayer("0", None, "no inputs were given to see what reads it"),)


def test_our_own_layers_take_their_activation_along(images):
    model = nn.Sequential(nn.Conv2d(3, 24, 3), cs.norm.BatchNorm2d(24), nn.ReLU())
    plain = copy.deepcopy(model)
    assert cs.norm.fast(model, SHAPE).layers == (FastLayer("1", "2", ""),)
    for got, wanted in zip(step(model, images), step(plain, images), strict=True):
        torch.testing.assert_close(got, wanted, rtol=2e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_cannot_be_done_says_so():
    with pytest.raises(ConvscopeError, match="Sequential without a batch norm that kernels take"):
        cs.norm.fast(nn.Sequential(nn.Conv2d(3, 3, 3)))
    with pytest.raises(ConvscopeError, match=r"made by torch\.jit"):
        cs.norm.fast(nn.Sequential(nn.BatchNorm2d(3), torch.jit.script(nn.ReLU())))
    compiled = nn.Sequential(nn.BatchNorm2d(3))
    compiled[0].compile()
    with pytest.raises(ConvscopeError, match=r"0 \(BatchNorm2d\), compiled"):
        cs.norm.fast(compiled)

"""Recalibration against explicit float64 statistics of all data, and what it leaves alone."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration import RecalibrationPlan
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import convnet, deployed_inputs, sequential_by_hand, two_pass, unchanged

METHODS = ("one-pass", "sequential")


@pytest.mark.parametrize("method", METHODS)
def test_unequal_batches_weigh_by_their_samples(method):
    net = nn.Sequential(nn.BatchNorm1d(1))
    batches = [torch.randn(1000, 1), 100 + torch.randn(2, 1)]
    mean, variance = two_pass(torch.cat(batches))
    found = recalibrate(net, batches, method=method)
    assert net[0].running_mean.item() == pytest.approx(mean.item(), rel=1e-6)
    assert net[0].running_var.item() == pytest.approx(variance.item(), rel=1e-6)
    assert abs(mean) < 0.5
    assert variance > 15
    layer = found.layers[0]
    assert (layer.status, layer.num_values, layer.num_calls) == ("recalibrated", 1002, 2)
    assert (found.num_samples, found.num_batches) == (1002, 2)
    assert found.residual_after < 1e-6
    assert layer.before.variance == pytest.approx(math.log(variance + 1e-5) - math.log(1 + 1e-5), rel=1e-6)
    assert layer.before.mean == pytest.approx(mean.item() / math.sqrt(1 + 1e-5), rel=1e-6)
    # The contrast: PyTorch's own function takes the mean of the batches' means, and of their variances.
    update_bn(batches, net)
    assert net[0].running_mean.item() == pytest.approx(50, abs=1)
    assert net[0].running_var.item() < 3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_large_mean_costs_no_digits(layout):
    net = nn.Sequential(nn.BatchNorm2d(6))
    x = (1e4 + torch.randn(64, 6, 5, 7)).contiguous(memory_format=layout)
    mean, variance = two_pass(x)
    recalibrate(net, list(x.split(3)))
    assert torch.equal(net[0].running_mean, mean.float())
    assert torch.allclose(net[0].running_var.double(), variance, rtol=1e-7, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_sequential_is_exact_in_the_deployed_network(batch_size):
    net, x = convnet(torch.float64).train(), torch.randn(20, 2, 9, 9, dtype=torch.float64)
    nn.init.uniform_(net[1].bias, -1, 1)
    nn.init.uniform_(net[5].weight, 0.5, 2)
    expected = sequential_by_hand(net, x)
    found = recalibrate(net, list(x.split(batch_size)), method="sequential")
    for path, (mean, variance) in expected.items():
        layer = net.get_submodule(path)
        assert torch.allclose(layer.running_mean, mean, rtol=1e-10, atol=1e-10)
        assert torch.allclose(layer.running_var, variance, rtol=1e-10, atol=1e-10)
    assert found.residual_before > 0.1
    assert found.residual_after < 1e-9
    assert [layer.path for layer in found.layers] == ["1", "5", "8", "12"]
    assert found.num_passes == 1 + 4 + 1


def test_a_layer_in_turn_is_the_last_to_be_computed():
    ran = []
    net = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(2, 2), nn.BatchNorm1d(2))))
    for place, layer in enumerate(net):
        layer.register_forward_pre_hook(lambda module, args, place=place: ran.append(place))
    recalibrate(net, list(torch.randn(9, 2).split(3)), method="sequential")
    # Three batches: each twice in the first pass, then as far as layer 1, 3, 5 and 7, then all the way.
    expected = [*range(8)] * 6 + [place for end in (2, 4, 6, 8) for _ in range(3) for place in range(end)]
    assert ran == expected + [*range(8)] * 3


def test_sequential_does_not_depend_on_the_order_of_the_data():
    x = torch.randn(24, 2, 9, 9, dtype=torch.float64)
    x = x[x.mean((1, 2, 3)).argsort()]
    net = convnet(torch.float64)
    sorted_net, other = copy.deepcopy(net), copy.deepcopy(net)
    recalibrate(sorted_net, list(x.split(4)), method="sequential")
    recalibrate(other, list(x[torch.randperm(24)].split(7)), method="sequential")
    for ours, theirs in zip(sorted_net.buffers(), other.buffers()):
        if ours.is_floating_point():
            assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("window", "batch_size"), [(1, 4), (6, 2), (5, 3), (1000, 2)])
def test_one_pass_normalises_by_the_latest_samples(window, batch_size):
    """Two layers by hand: the second one's inputs are the first one's outputs by its latest samples."""
    x = torch.randn(13, 3, dtype=torch.float64)
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Tanh(), nn.BatchNorm1d(3)).double()
    batches, seconds = x.split(batch_size), []
    for number, batch in enumerate(batches):
        first = number
        while sum(map(len, batches[first : number + 1])) < max(window, 2) and first > 0:
            first -= 1
        latest = torch.cat(batches[first : number + 1])
        mean, variance = latest.mean(0), latest.var(0, correction=0)
        seconds.append(torch.tanh((batch - mean) / (variance + 1e-5).sqrt()))
    mean, variance = two_pass(torch.cat(seconds))
    recalibrate(net, list(batches), plan=RecalibrationPlan(window=window))
    assert torch.allclose(net[2].running_mean, mean, rtol=1e-12, atol=1e-12)
    assert torch.allclose(net[2].running_var, variance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_residuals_are_those_of_evaluation_mode(method):
    net, x = convnet().train(), torch.randn(30, 2, 9, 9)
    before = copy.deepcopy(net)
    batches = list(x.split(4))
    found = recalibrate(net, batches, method=method)
    for model, name in ((before, "before"), (net, "after")):
        seen = deployed_inputs(model, batches)
        for layer in found.layers:
            module, off = model.get_submodule(layer.path), getattr(layer, name)
            mean, variance = two_pass(*seen[layer.path])
            scale = module.running_var.double() + module.eps
            means = ((mean - module.running_mean.double()) / scale.sqrt()).abs()
            ratios = ((variance + module.eps) / scale).log().abs()
            assert off.mean == pytest.approx(means.max().item(), rel=1e-3, abs=1e-6)
            assert off.variance == pytest.approx(ratios.max().item(), rel=1e-3, abs=1e-6)
    assert found.residual_after < 0.2 * found.residual_before


@pytest.mark.slow
def test_the_standard_error_is_that_of_independent_samples():
    """Over many data sets, the mean's residual scatters by as much as its error says, maps or not."""
    net = nn.Sequential(nn.BatchNorm2d(1))
    means, variances = [], []
    for _ in range(120):
        level = torch.randn(40, 1, 1, 1)
        x = level + 0.5 * torch.randn(40, 1, 3, 3)  # positions of a sample agree for the most part
        with torch.no_grad():
            net[0].running_mean.zero_()
            net[0].running_var.fill_(1.25)
        off = recalibrate(net, list(x.split(10))).layers[0].before
        means.append((off.mean, off.mean_error))
        variances.append((off.variance, off.variance_error))
    for pairs in (means, variances):
        size, error = torch.tensor(pairs).double().unbind(1)
        assert size.square().mean().sqrt().item() == pytest.approx(error.mean().item(), rel=0.2)


class Reused(nn.Module):
    """One batch norm for two levels of different statistics."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.same_bn = self.bn

    def forward(self, x):
        return self.bn(x).sum((2, 3)) + self.same_bn(x[:, :, ::2] * 3 + 5).sum((2, 3))


@pytest.mark.parametrize("method", METHODS)
def test_a_reused_layer_pools_all_its_calls(method):
    net, x = Reused(), torch.randn(12, 3, 4, 4)
    found = recalibrate(net, list(x.split(5)), method=method)
    mean, variance = two_pass(x, x[:, :, ::2] * 3 + 5)
    assert torch.allclose(net.bn.running_mean.double(), mean, rtol=1e-6)
    assert torch.allclose(net.bn.running_var.double(), variance, rtol=1e-6)
    assert len(found.layers) == 1
    assert (found.layers[0].num_calls, found.layers[0].num_values) == (6, 12 * 16 + 12 * 8)
    assert found.residual_after < 1e-6


class Recurrent(nn.Module):
    """A batch norm behind itself, beside one that isn't."""

    def __init__(self):
        super().__init__()
        self.bn, self.last, self.mix = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(3):
            x = x + 0.5 * torch.tanh(self.mix(self.bn(x)))
        return self.last(x)


def test_a_layer_behind_itself_is_repeated_until_it_agrees():
    net, x = Recurrent().double(), torch.randn(50, 4, dtype=torch.float64)
    found = recalibrate(net, list(x.split(7)), method="sequential")
    assert found.residual_after < 1e-3
    assert found.num_passes > 1 + 2 + 1
    seen = deployed_inputs(net, [x])
    mean, variance = two_pass(*seen["bn"])
    assert torch.allclose(net.bn.running_mean, mean, atol=1e-3)
    assert torch.allclose(net.bn.running_var, variance, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [1, 5])
def test_a_single_sample_of_one_value_is_pooled_too(method, first):
    """In training mode PyTorch's layer refuses such a batch, whether it comes last or first."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    x = torch.randn(11, 3)
    batches = [x[:first], *x[first:-1].split(5), x[-1:]]
    recalibrate(net, batches, method=method)
    mean, variance = two_pass(net[0](x))
    assert torch.allclose(net[1].running_mean.double(), mean, atol=1e-6)
    assert torch.allclose(net[1].running_var.double(), variance, rtol=1e-5)
    assert all(buffer.isfinite().all() for buffer in net.buffers())
    if method == "sequential":
        expected = sequential_by_hand(net, x)["4"]
        assert torch.allclose(net[4].running_var.double(), expected[1], rtol=1e-5)


def test_dropout_is_off():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    x = torch.randn(40, 3)
    recalibrate(net, x)
    assert torch.allclose(net[1].running_var.double(), two_pass(x)[1], rtol=1e-6)


def test_poisoned_statistics_are_repaired():
    net, x = convnet(), torch.randn(16, 2, 9, 9)
    with torch.no_grad():
        net[1].running_mean.fill_(math.nan)
        net[5].running_var.fill_(-1.0)
    found = recalibrate(net, list(x.split(4)), method="sequential")
    assert found.residual_before == math.inf
    assert found.residual_after < 1e-5
    assert found.to_dict()["layers"][0]["before"]["mean"] is None


def test_statistics_beyond_half_precision_buffers_are_refused():
    net, x = nn.Sequential(nn.BatchNorm1d(2)).half(), (500 * torch.randn(30, 2)).half()
    before = state_of(net)
    with pytest.raises(ConvscopeError, match=r"^0 whose inputs have a statistic of .* float16 buffers"):
        recalibrate(net, x)
    unchanged(net, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float64_and_rounded_once(dtype):
    net = nn.Sequential(nn.BatchNorm2d(3)).to(dtype)
    x = (100 + torch.randn(500, 3, 2, 2)).to(dtype)
    mean, variance = two_pass(x)
    recalibrate(net, list(x.split(3)))
    assert net[0].running_mean.dtype == dtype
    assert torch.equal(net[0].running_mean, mean.to(dtype))
    assert torch.equal(net[0].running_var, variance.to(dtype))


def test_half_precision_inputs_beside_float32_statistics():
    net = nn.Sequential(nn.BatchNorm2d(3))
    x = (100 + torch.randn(50, 3, 2, 2)).bfloat16()
    recalibrate(net, list(x.split(3)))
    assert torch.allclose(net[0].running_var.double(), two_pass(x)[1], rtol=1e-6)

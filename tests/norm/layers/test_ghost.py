"""Ghost batch normalisation against PyTorch's layer run on one part of the batch after the other."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from convscope.core.errors import ConvscopeError
from convscope.norm.axes import GHOST, MEMBERS, legend
from convscope.norm.engine.running import NotFiniteWarning
from convscope.norm.layers.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from norm.four_steps import relative

# Shape of the batch, ghost_batch_size, and the parts written out by hand.
CASES = {
    "equal parts": ((8, 3, 5, 2), 4, [4, 4]),
    "a smaller last part": ((10, 3, 5, 2), 4, [4, 4, 2]),
    "a last sample with space": ((9, 3, 5, 2), 4, [4, 4, 1]),
    "a last sample without": ((9, 3), 4, [4, 5]),
    "a last sample of one pixel": ((9, 3, 1, 1), 4, [4, 5]),
    "one part and a last sample": ((5, 3), 4, [5]),
    "smaller than one part": ((3, 3, 5, 2), 4, [3]),
    "exactly one part": ((4, 3, 5, 2), 4, [4]),
    "one part but one": ((7, 3, 2), 4, [4, 3]),
    "single samples": ((3, 3, 5, 2), 1, [1, 1, 1]),
    "all sizes equal": ((3, 3, 3), 3, [3]),
    "parts equal to channels": ((9, 3, 3), 3, [3, 3, 3]),
    "volumes": ((6, 3, 2, 3, 2), 3, [3, 3]),
    "volumes, a smaller last part": ((7, 3, 2, 3, 2), 3, [3, 3, 1]),
}
OURS = {2: GhostBatchNorm1d, 3: GhostBatchNorm1d, 4: GhostBatchNorm2d, 5: GhostBatchNorm3d}
TORCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
    return layer


def formats(shape):
    return [None, *{4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(len(shape), [])]


LAYOUTS = [(name, layout) for name, (shape, _, _) in CASES.items() for layout in formats(shape)]


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_results_do_not_depend_on_blocks(name, layout):
    test_each_part_is_a_batch_for_torch_s_layer(name, layout, {})


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}], ids=str)
def test_each_part_is_a_batch_for_torch_s_layer(name, layout, options):
    """In float64: outputs, gradients, running averages, counts and, at test time, outputs again."""
    shape, size, parts = CASES[name]
    theirs = randomised(TORCH[len(shape)](3, **options)).double()
    ours = OURS[len(shape)](3, ghost_batch_size=size, **options).double()
    ours.load_state_dict(theirs.state_dict())
    for step in (1, 2):
        x = torch.randn(shape, dtype=torch.float64) * step + step
        x = (x if layout is None else x.contiguous(memory_format=layout)).requires_grad_()
        dy = torch.randn(shape, dtype=torch.float64)
        y = ours(x)
        results = []
        for out, layer in ((y, ours), (torch.cat([theirs(part) for part in x.split(parts)]), theirs)):
            results.append((out, *torch.autograd.grad(out, [x, *layer.parameters()], dy), *layer.buffers()))
        assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(*results, strict=True))
        assert y.stride() == x.stride()
        assert ours.num_batches_tracked.item() == step * len(parts)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-12)
    assert ours.num_batches_tracked.item() == 2 * len(parts)


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0])
def test_running_averages_follow_the_published_rule(momentum):
    """μ ← (1 − η)^k μ + η Σ (1 − η)^(k − i) μᵢ over k ghost batches, and so for the unbiased variance."""
    layer = randomised(GhostBatchNorm2d(3, momentum=momentum, ghost_batch_size=4)).double()
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    x = torch.randn(20, 3, 2, 3, dtype=torch.float64) * 3 + 1
    layer(x)
    k, keep = 5, 1 - momentum
    mean, variance = keep**k * mean, keep**k * variance
    for i in range(1, k + 1):
        values = x[4 * (i - 1) : 4 * i].transpose(0, 1).reshape(3, -1)
        weight = momentum * keep ** (k - i)
        mean = mean + weight * values.sum(1) / 24
        variance = variance + weight * ((values - values.sum(1, keepdim=True) / 24) ** 2).sum(1) / 23
    assert torch.allclose(layer.running_mean, mean, rtol=1e-12)
    assert torch.allclose(layer.running_var, variance, rtol=1e-12)


def test_warm_start_counts_ghost_batches():
    layer = GhostBatchNorm1d(1, ghost_batch_size=2, warm_start=True, momentum=0.1).double()
    x = torch.arange(8.0, dtype=torch.float64)[:, None]
    layer(x)
    assert layer.running_mean.item() == pytest.approx((0.5 + 2.5 + 4.5 + 6.5) / 4)  # plain average: 1/n > 0.1
    assert layer.running_var.item() == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_lower_precision(name, dtype):
    shape, size, parts = CASES[name]
    layer = randomised(OURS[len(shape)](3, ghost_batch_size=size)).to(dtype)
    exact = TORCH[len(shape)](3).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(shape).to(dtype).requires_grad_()
    dy = torch.randn(shape).to(dtype)
    x_, y = x.detach().double().requires_grad_(), layer(x)
    y_ = torch.cat([exact(part) for part in x_.split(parts)])
    (dx,), (dx_,) = torch.autograd.grad(y, x, dy), torch.autograd.grad(y_, x_, dy.double())
    assert y.dtype == dx.dtype == dtype
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert relative(y, y_) < TOLERANCE[dtype]
    assert relative(dx, dx_) < 2 * TOLERANCE[dtype]
    assert torch.allclose(layer.running_var.double(), exact.running_var, rtol=1e-5)


def test_large_means_in_channels_last():
    x = (torch.randn(64, 2, 64, 64) + 1e4).contiguous(memory_format=torch.channels_last)
    layer = GhostBatchNorm2d(2, ghost_batch_size=32, momentum=1.0)
    y = layer(x)
    for part, out in zip(x.double().split(32), y.double().split(32)):
        mean, variance = part.mean((0, 2, 3), keepdim=True), part.var((0, 2, 3), correction=0, keepdim=True)
        assert (out - (part - mean) / (variance + 1e-5).sqrt()).abs().max() < 1e-5
    assert torch.allclose(layer.running_var.double(), x[32:].double().var((0, 2, 3)), rtol=1e-5)


def test_members_of_the_family_say_what_it_averages_over():
    """Its sets are those of batch norm within a part, and of instance norm if parts are single samples."""
    assert GHOST.dims(legend(4, parted=True)) == (1, 3, 4)
    x = torch.randn(6, 3, 4, 5, dtype=torch.float64) * 3 + 1
    y = GhostBatchNorm2d(3, ghost_batch_size=2)(x)
    assert y.unflatten(0, (3, 2)).mean(GHOST.dims("PnCSS")).abs().max() < 1e-12
    assert y.mean(MEMBERS["instance"].dims("NCSS")).abs().max() > 1e-2
    single = GhostBatchNorm2d(3, ghost_batch_size=1)(x)
    assert torch.allclose(single, nn.InstanceNorm2d(3)(x), atol=1e-12)


@pytest.mark.parametrize("name", ["equal parts", "a smaller last part", "a last sample without"])
def test_double_backward(name):
    shape, size, _ = CASES[name]
    layer = randomised(OURS[len(shape)](3, ghost_batch_size=size)).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, (x,), fast_mode=True)


def test_what_is_not_finite_in_one_part_moves_nothing_for_that_part():
    layer = GhostBatchNorm1d(2, ghost_batch_size=2, momentum=0.5).double()
    x = torch.randn(6, 2, dtype=torch.float64)
    x[2, 0] = float("nan")
    with pytest.warns(NotFiniteWarning, match="GhostBatchNorm1d at '0'"):
        y = nn.Sequential(layer)(x)
    assert y[:2].isfinite().all()
    assert y[4:].isfinite().all()
    expected = nn.BatchNorm1d(2, momentum=0.5).double()
    expected(x[:2]), expected(x[4:])
    assert torch.allclose(layer.running_mean, expected.running_mean)
    assert torch.allclose(layer.running_var, expected.running_var)
    assert layer.num_batches_tracked.item() == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
    assert layer.num_batches_tracked.item() == 4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [8, 10])
def test_simulated_tensors(training, batch):
    with FakeTensorMode():
        layer = GhostBatchNorm2d(3, ghost_batch_size=4).train(training)
        x = torch.randn(batch, 3, 5, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
        y = layer(x)
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert y.stride() == x.stride()
        assert layer.weight.grad.shape == layer.bias.grad.shape == (3,)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_and_moves_nothing(training):
    layer = GhostBatchNorm2d(3).train(training)
    before = copy.deepcopy(layer.state_dict())
    assert layer(torch.empty(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_without_running_statistics_test_time_takes_those_of_ghost_batches():
    layer = GhostBatchNorm2d(3, ghost_batch_size=4, track_running_stats=False)
    x = torch.randn(8, 3, 5, 2)
    assert torch.equal(layer(x), layer.eval()(x))
    assert layer.num_batches_tracked is None


def test_a_torch_layer_whose_class_changes():
    layer = randomised(nn.BatchNorm2d(3)).double()
    twin = copy.deepcopy(layer)
    layer.__class__ = GhostBatchNorm2d
    assert layer.ghost_batch_size == 32
    x = torch.randn(64, 3, 2, 2, dtype=torch.float64)
    assert torch.allclose(layer(x), torch.cat([twin(x[:32]), twin(x[32:])]), atol=1e-12)
    layer.__class__ = nn.BatchNorm2d
    assert torch.allclose(layer(x), twin(x), atol=1e-12)


def test_state_dicts_are_torch_s_and_copies_work():
    ours, theirs = randomised(GhostBatchNorm2d(3, ghost_batch_size=2)), nn.BatchNorm2d(3)
    assert theirs.load_state_dict(ours.state_dict()).missing_keys == []
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata
    x = torch.randn(4, 3, 4, 4)
    twins = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    expected = ours(x)
    assert all(torch.equal(twin(x), expected) for twin in twins)
    assert repr(ours) == repr(twins[1])
    assert "ghost_batch_size=2" in repr(ours)


@pytest.mark.parametrize("size", [0, -1, 2.0, None, "32"])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ConvscopeError, match=r"ghost_batch_size=.*whole number"):
        GhostBatchNorm2d(3, ghost_batch_size=size)
    layer = GhostBatchNorm2d(3)
    layer.ghost_batch_size = size
    with pytest.raises(ConvscopeError, match="GhostBatchNorm2d at '0' with ghost_batch_size"):
        nn.Sequential(layer)(torch.randn(4, 3, 2, 2))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(GhostBatchNorm1d(3), (1, 3)), (GhostBatchNorm2d(3, ghost_batch_size=1), (4, 3, 1, 1))],
)
def test_one_value_a_channel_is_refused_and_moves_nothing(layer, shape):
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ConvscopeError, match="one value for each channel of a ghost batch"):
        layer(torch.randn(shape))
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_a_last_part_that_is_refused_moves_nothing_either():
    layer = GhostBatchNorm2d(3, ghost_batch_size=2)
    before = copy.deepcopy(layer.state_dict())
    mask = torch.ones(5, 2, 2, dtype=torch.bool)
    mask[4] = False
    with pytest.raises(ConvscopeError, match="leave 0 of the values of a channel of a ghost batch"):
        layer(torch.randn(5, 3, 2, 2), mask)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [4, 5])
def test_compiles_in_one_graph(batch):
    layer = randomised(GhostBatchNorm2d(3, ghost_batch_size=2))
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = torch.randn(batch, 3, 4, 4, requires_grad=True)
    dy = torch.randn_like(x)
    results = [(y := one(x), torch.autograd.grad(y, x, dy)[0], one.running_var) for one in (layer, compiled)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results))

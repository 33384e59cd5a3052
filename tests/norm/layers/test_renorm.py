"""Batch renormalisation against its definition in float64, with r and d cut out of autograd's graph."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from convscope.core.errors import ConvscopeError
from convscope.norm import BatchNorm2d
from convscope.norm.engine import recomputing
from convscope.norm.layers.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, Relaxation
from norm.four_steps import double, four_steps, relative

SHAPES = {
    "features": (BatchRenorm1d, (8, 3)),
    "sequences, C == L": (BatchRenorm1d, (4, 3, 3)),
    "maps": (BatchRenorm2d, (4, 3, 5, 2)),
    "two values a channel": (BatchRenorm2d, (2, 3, 1, 1)),
    "volumes": (BatchRenorm3d, (2, 3, 2, 3, 4)),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
OPEN = {"relaxation": None}
NARROW = {"r_max": 1.3, "d_max": 0.4, "relaxation": None}


def by_definition(x, weight, bias, running, bounds, eps=1e-5):
    """Algorithm 1 of the paper, for float64 tensors, with ``running`` a mean and a variance of shape (C,)."""
    view = (1, -1) + (1,) * (x.dim() - 2)
    dims = tuple(dim for dim in range(x.dim()) if dim != 1)
    xhat, mean, variance = four_steps(x, None, None, dims, eps)
    running_mean, running_var = (average.double().view(view) for average in running)
    sigma = torch.sqrt(running_var + eps)
    r, d = torch.sqrt(variance + eps) / sigma, (mean - running_mean) / sigma
    r = torch.minimum(torch.maximum(r, torch.full_like(r, 1 / bounds[0])), torch.full_like(r, bounds[0]))
    d = torch.minimum(torch.maximum(d, torch.full_like(d, -bounds[1])), torch.full_like(d, bounds[1]))
    y = xhat * r.detach() + d.detach()
    y = y if weight is None else y * weight.view(view)
    return (y if bias is None else y + bias.view(view)), mean.flatten(), variance.flatten()


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    nn.init.uniform_(layer.running_mean, -1.0, 2.0)
    nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return layer


def formats(shape):
    return [None, *{4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(len(shape), [])]


TABLE = [
    (name, dtype, layout, affine)
    for name, (_, shape) in SHAPES.items()
    for dtype in TOLERANCE
    for layout in formats(shape)
    for affine in ({}, {"affine": False}, {"bias": False})
    if affine != {"bias": False} or dtype == torch.float32
]


@pytest.mark.parametrize(("name", "dtype", "layout", "affine"), TABLE)
def test_three_training_steps_and_test_time(name, dtype, layout, affine):
    """Outputs, gradients and running averages; parameters stay in float32 beside half-precision inputs."""
    kind, shape = SHAPES[name]
    layer = randomised(kind(3, momentum=0.3, **NARROW, **affine))
    layer.to(torch.float64 if dtype == torch.float64 else torch.float32)
    parameters = list(layer.parameters())
    mean, variance = layer.running_mean.double().clone(), layer.running_var.double().clone()
    for step in range(3):
        x = (torch.randn(shape) * 1.5 + 0.5 * step).to(dtype)
        x = (x if layout is None else x.contiguous(memory_format=layout)).requires_grad_()
        dy = torch.randn(shape).to(dtype)
        leaves = double(x, layer.weight, layer.bias)
        y, batch_mean, batch_variance = by_definition(*leaves, (mean, variance), (1.3, 0.4))
        found = layer(x)
        assert found.dtype == dtype
        assert found.stride() == x.stride()
        assert relative(found, y) < TOLERANCE[dtype]
        expected = torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], dy.double())
        gradients = torch.autograd.grad(found, [x, *parameters], dy)
        # The gradient of two values cancels but for ε, and with it nothing to measure rounding by.
        scale = float(dy.abs().max() / batch_variance.detach().min().sqrt())
        for ours, oracle in zip(gradients, expected, strict=True):
            assert (ours.double() - oracle).abs().max() < TOLERANCE[dtype] * scale
        m = x.numel() // 3
        mean = 0.7 * mean + 0.3 * batch_mean.detach()
        variance = 0.7 * variance + 0.3 * batch_variance.detach() * m / (m - 1)
        assert torch.allclose(layer.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        assert torch.allclose(layer.running_var.double(), variance, rtol=1e-5, atol=1e-5)
        assert layer.num_batches_tracked.item() == step + 1
    view = (1, 3) + (1,) * (len(shape) - 2)
    y = (x.double() - mean.view(view)) / (variance.view(view) + 1e-5).sqrt()
    y = y if layer.weight is None else y * layer.weight.double().view(view)
    y = y if layer.bias is None else y + layer.bias.double().view(view)
    assert relative(layer.eval()(x), y) < TOLERANCE[dtype]


def test_every_bound_by_hand():
    """Values −1 and 1, so that x̂ is them (ε = 0): r and d can be read from the output."""
    layer = BatchRenorm1d(5, eps=0.0, r_max=2.0, d_max=0.5, relaxation=None)
    layer.running_mean.copy_(torch.tensor([0.0, 0.0, 0.0, -8.0, 1.0]))
    layer.running_var.copy_(torch.tensor([1.0, 1 / 100, 100.0, 1.0, 4.0]))
    y = layer(torch.tensor([[-1.0], [1.0]]).expand(2, 5).contiguous())
    r = [1.0, 2.0, 0.5, 1.0, 0.5]  # σ_B / σ = 1, 10, 1/10, 1, 1/2
    d = [0.0, 0.0, 0.0, 0.5, -0.5]  # (μ_B − μ) / σ = 0, 0, 0, 8, −1/2
    assert torch.allclose(y, torch.tensor([[b - a for a, b in zip(r, d)], [b + a for a, b in zip(r, d)]]))


@pytest.mark.parametrize("options", [{}, {"r_max": 1.0, "d_max": 0.0, "relaxation": None}], ids=str)
def test_at_first_and_with_closed_bounds_it_is_batch_norm(options):
    theirs = randomised(nn.BatchNorm2d(3)).double()
    ours = BatchRenorm2d(3, **options).double()
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
        dy = torch.randn_like(x)
        results = [
            (y := layer(x), *torch.autograd.grad(y, [x, *layer.parameters()], dy), *layer.buffers())
            for layer in (ours, theirs)
        ]
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results))


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_not_clipped_training_computes_what_test_time_does(offset):
    layer = randomised(BatchRenorm2d(3, r_max=1e6, d_max=1e6, relaxation=None))
    layer.running_mean += offset
    x = torch.randn(2, 3, 4, 5) * 3 + 1 + offset
    mean, deviation = layer.running_mean.double(), (layer.running_var.double() + layer.eps).sqrt()
    xhat = (x.double() - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    y = xhat * layer.weight.double().view(1, 3, 1, 1) + layer.bias.double().view(1, 3, 1, 1)
    at_test = copy.deepcopy(layer).eval()(x)
    found = layer(x)
    assert relative(found, y) < 1e-6
    assert relative(at_test, found) < (1e-6 if offset == 0 else 1e-3)  # PyTorch's operator loses digits


@pytest.mark.parametrize(
    ("step", "r_max", "d_max"),
    [
        (0, 1, 0),
        (5_000, 1, 0),
        (5_001, 1 + 2 / 35_000, 5 / 20_000),
        (15_000, 1 + 2 * 10 / 35, 2.5),
        (22_500, 2, 5 * 17.5 / 20),
        (25_000, 1 + 2 * 20 / 35, 5),
        (40_000, 3, 5),
        (10**9, 3, 5),
    ],
)
def test_the_published_relaxation(step, r_max, d_max):
    """1 and 0 for 5,000 steps, then up to 3 at step 40,000 and 5 at 25,000; the layer follows its counter."""
    bounds = Relaxation().bounds(3.0, 5.0, torch.tensor(step))
    assert [bound.item() for bound in bounds] == pytest.approx([r_max, d_max])
    layer = BatchRenorm1d(2, eps=0.0)
    layer.num_batches_tracked.fill_(step)
    layer.running_mean.copy_(torch.tensor([0.0, 100.0]))
    layer.running_var.copy_(torch.tensor([1e-6, 1.0]))
    y = layer(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert y[:, 0].tolist() == pytest.approx([-r_max, r_max])
    assert y[:, 1].tolist() == pytest.approx([-1 - d_max, 1 - d_max])
    assert layer.num_batches_tracked.item() == step + 1


def test_another_relaxation():
    layer = BatchRenorm1d(1, eps=0.0, r_max=2.0, relaxation=Relaxation(1, 3, 3))
    found = []
    for _ in range(5):
        layer.running_var.fill_(1e-6)
        found.append(layer(torch.tensor([[-1.0], [1.0]]))[1].item())
    assert found == pytest.approx([1.0, 1.0, 1.5, 2.0, 2.0])
    at_once = Relaxation(2, 2, 2).bounds(3.0, 5.0, torch.tensor([2, 3]))
    assert [bound.tolist() for bound in at_once] == [[1.0, 3.0], [0.0, 5.0]]


def test_double_backward_with_r_and_d_constant_as_they_are_when_clipped():
    """There gradcheck's differences and autograd speak of the same function."""
    layer = randomised(BatchRenorm2d(2, r_max=1.0, d_max=0.3, relaxation=None)).double()
    layer.running_mean.copy_(torch.tensor([9.0, -9.0]))
    x = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)

    def function(x, weight, bias):
        layer.running_mean.copy_(torch.tensor([9.0, -9.0]))
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    inputs = (x, *(parameter.detach().clone().requires_grad_() for parameter in layer.parameters()))
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_double_backward_within_the_bounds():
    layer = randomised(BatchRenorm2d(3, **OPEN)).double()
    running = layer.running_mean.clone(), layer.running_var.clone()
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    leaves = double(x, layer.weight, layer.bias)
    y, _, _ = by_definition(*leaves, running, (3.0, 5.0))
    results = []
    for out, inputs in ((layer(x), [x, *layer.parameters()]), (y, leaves)):
        first = torch.autograd.grad(out, inputs, dy, create_graph=True)
        penalty = sum(part.square().sum() for part in first)
        results.append((*first, *torch.autograd.grad(penalty, inputs[:2])))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*results, strict=True))


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.square()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("waiting", [1, 3])
def test_checkpointing_changes_neither_gradients_nor_averages(use_reentrant, shared, waiting):
    """Also if one layer runs twice, and if several batches wait for their backward pass."""
    first = randomised(BatchRenorm2d(3, momentum=0.5, **OPEN)).double()
    second = first if shared else randomised(BatchRenorm2d(3, momentum=0.5, **OPEN)).double()
    plain = Net(first, nn.Tanh(), second)
    again = copy.deepcopy(plain)
    batches = [torch.randn(4, 3, 2, 2, dtype=torch.float64) * (1 + i) for i in range(waiting)]
    found = []
    for net, run in ((plain, plain), (again, lambda x: checkpoint(again, x, use_reentrant=use_reentrant))):
        inputs = [batch.clone().requires_grad_() for batch in batches]
        outputs = [run(x) for x in inputs]
        for y in outputs:
            y.sum().backward()
        found.append([x.grad for x in inputs] + [p.grad for p in net.parameters()] + list(net.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert first.num_batches_tracked.item() == waiting * (2 if shared else 1)


def test_only_a_few_batches_are_remembered_and_not_in_copies():
    """An unknown batch is renormalised by the averages as they are: a wrong gradient is better than none."""
    layer = BatchRenorm1d(2, **OPEN)
    x = torch.randn(5, 2, requires_grad=True)
    y = checkpoint(layer, x, use_reentrant=False)
    for _ in range(recomputing.KEPT):
        layer(torch.randn(5, 2))
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert len(pickle.dumps(layer)) < len(pickle.dumps(BatchRenorm1d(2, **OPEN))) + 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_turned_to_half_precision(dtype):
    layer = randomised(BatchRenorm2d(3, **OPEN))
    running = layer.running_mean.clone(), layer.running_var.clone()
    layer = layer.to(dtype)
    x = torch.randn(4, 3, 8, 8).to(dtype).requires_grad_()
    leaves = double(x, layer.weight, layer.bias)
    dy = torch.randn(x.shape).to(dtype)
    y = layer(x)
    y.backward(dy)
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == layer.bias.grad.dtype == dtype
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    oracle, _, _ = by_definition(*leaves, running, (3.0, 5.0))
    oracle.backward(dy.double())
    assert relative(y, oracle) < TOLERANCE[dtype]
    for ours, exact in zip((x, *layer.parameters()), leaves, strict=True):
        assert relative(ours.grad, exact.grad) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relaxation", [None, Relaxation()])
def test_simulated_tensors_leave_nothing_behind(training, relaxation):
    with FakeTensorMode():
        layer = BatchRenorm2d(3, relaxation=relaxation).train(training)
        x = torch.randn(4, 3, 5, 2, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == x.shape
        assert layer.weight.grad.shape == layer.bias.grad.shape == (3,)
        checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert layer not in recomputing._RECENT


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_and_moves_nothing(training):
    layer = BatchRenorm2d(3, **OPEN).train(training)
    before = copy.deepcopy(layer.state_dict())
    x = torch.empty(0, 3, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == x.shape
    assert layer.weight.grad.tolist() == [0, 0, 0]
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_a_torch_layer_whose_class_changes():
    layer = randomised(nn.BatchNorm2d(3))
    layer.num_batches_tracked.fill_(100_000)
    running = layer.running_mean.clone(), layer.running_var.clone()
    layer.__class__ = BatchRenorm2d
    assert (layer.r_max, layer.d_max, layer.relaxation) == (3.0, 5.0, Relaxation())
    x = torch.randn(4, 3, 5, 2)
    y, _, _ = by_definition(*double(x, layer.weight, layer.bias), running, (3.0, 5.0))
    assert relative(layer(x), y) < 1e-6
    layer.__class__ = nn.BatchNorm2d
    assert relative(layer(x), four_steps(x.double(), None, None, (0, 2, 3), 1e-5)[0]) > 0.1


def test_state_dicts_are_torch_s_and_copies_work():
    ours, theirs = randomised(BatchRenorm2d(3)), nn.BatchNorm2d(3)
    assert theirs.load_state_dict(ours.state_dict()).missing_keys == []
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata
    other = BatchRenorm2d(3, r_max=2.0, d_max=1.0, relaxation=None)
    x = torch.randn(2, 3, 4, 4)
    twins = [copy.deepcopy(other), pickle.loads(pickle.dumps(other))]
    expected = other(x)
    assert all(torch.equal(twin(x), expected) for twin in twins)
    assert repr(other) == repr(twins[1])
    assert "r_max=2, d_max=1" in repr(other)
    assert "d_max=5 from step 5000" in repr(ours)
    assert isinstance(ours, nn.BatchNorm2d)
    assert not isinstance(ours, BatchNorm2d)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: BatchRenorm2d(3, track_running_stats=False), ["without running statistics", "batch norm"]),
        (lambda: BatchRenorm2d(3, r_max=0.5), ["r_max=0.5", "at least 1"]),
        (lambda: BatchRenorm2d(3, d_max=-1.0), ["d_max=-1", "at least 0"]),
        (lambda: BatchRenorm2d(3, r_max=float("inf")), ["r_max=inf", "finite"]),
        (lambda: BatchRenorm2d(3, d_max=float("nan")), ["d_max=nan", "finite"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, parts):
    with pytest.raises(ConvscopeError) as caught:
        make()
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_without_running_statistics_whose_class_changes_is_refused_with_its_path(training):
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    layer.__class__ = BatchRenorm2d
    net = nn.Sequential(nn.Identity(), layer).train(training)
    with pytest.raises(ConvscopeError, match="BatchRenorm2d at '1' without running statistics"):
        net(torch.randn(2, 3, 4, 4))


def test_frozen_averages_renormalise_and_stay():
    """``track_running_stats`` set to False afterwards: the averages are there, and don't move."""
    layer = randomised(BatchRenorm2d(3, r_max=1e6, d_max=1e6, relaxation=None))
    layer.track_running_stats = False
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(4, 3, 5, 2)
    assert torch.allclose(layer(x), copy.deepcopy(layer).eval()(x), atol=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_it_corrects_what_batches_of_one_class_spoil():
    """Batches of two classes in turn: batch norm hides which one it is, renorm shows it as test time does."""
    x = [torch.randn(16, 1, dtype=torch.float64) + 2 * (-1) ** (i % 2) for i in range(200)]
    gaps = {}
    for kind in (BatchRenorm1d, nn.BatchNorm1d):
        layer = kind(1, **OPEN, momentum=0.01) if kind is BatchRenorm1d else kind(1, momentum=0.01)
        layer = layer.double()
        trained = [layer(batch) for batch in x]
        layer.eval()
        gaps[kind] = max((y - layer(batch)).abs().mean().item() for y, batch in zip(trained[-2:], x[-2:]))
    assert gaps[BatchRenorm1d] < 0.1
    assert gaps[nn.BatchNorm1d] > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("relaxation", [None, Relaxation(0, 4, 2)])
def test_compiles_in_one_graph(relaxation):
    layer = randomised(BatchRenorm2d(3, relaxation=relaxation))
    layer.num_batches_tracked.fill_(1)
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    dy = torch.randn_like(x)
    results = [(y := one(x), torch.autograd.grad(y, x, dy)[0], one.running_var) for one in (layer, compiled)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results))


@pytest.mark.parametrize("relaxation", [(0, 10, 10), "none", 3])
def test_a_schedule_that_is_none_is_refused(relaxation):
    with pytest.raises(ConvscopeError, match=r"relaxation=.*Relaxation"):
        BatchRenorm2d(4, relaxation=relaxation)

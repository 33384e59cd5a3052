import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from convscope.core.errors import ConvscopeError
from convscope.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from norm.four_steps import double, four_steps, relative

SHAPES = {
    "features": (BatchNorm1d, nn.BatchNorm1d, (8, 3)),
    "sequences": (BatchNorm1d, nn.BatchNorm1d, (4, 3, 5)),
    "C == L": (BatchNorm1d, nn.BatchNorm1d, (4, 3, 3)),
    "maps": (BatchNorm2d, nn.BatchNorm2d, (4, 3, 5, 2)),
    "one sample": (BatchNorm2d, nn.BatchNorm2d, (1, 3, 4, 5)),
    "one pixel": (BatchNorm2d, nn.BatchNorm2d, (6, 3, 1, 1)),
    "volumes": (BatchNorm3d, nn.BatchNorm3d, (2, 3, 2, 3, 4)),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def layouts(shape):
    return (
        [None] if len(shape) < 4 else [None, {4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)]]
    )


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
    return layer


TABLE = [
    (name, dtype, layout, affine, track, momentum)
    for name, (_, _, shape) in SHAPES.items()
    for dtype, layout, affine, track, momentum in itertools.product(
        TOLERANCE, layouts(shape), (True, False), (True, False), (0.1, 1.0, None)
    )
    if momentum == 0.1 or (track and dtype == torch.float32)
]


@pytest.mark.parametrize(("name", "dtype", "layout", "affine", "track", "momentum"), TABLE)
def test_training_and_test_time_against_the_float64_oracle(name, dtype, layout, affine, track, momentum):
    ours, _, shape = SHAPES[name]
    layer = randomised(ours(3, eps=1e-3, momentum=momentum, affine=affine, track_running_stats=track))
    layer.to(dtype if dtype == torch.float64 else torch.float32)  # half inputs, parameters in float32
    dims = tuple(dim for dim in range(len(shape)) if dim != 1)
    view = (1, 3) + (1,) * (len(shape) - 2)
    weight, bias = (None if p is None else p.detach().double().view(view) for p in (layer.weight, layer.bias))
    if track:
        mean, var = layer.running_mean.double().clone(), layer.running_var.double().clone()
    for step in (1, 2):
        x = (torch.randn(shape) * 2 + 1).to(dtype)
        x = x if layout is None else x.contiguous(memory_format=layout)
        y, batch_mean, batch_var = four_steps(x.double(), weight, bias, dims, 1e-3)
        found = layer(x)
        assert found.dtype == dtype
        assert found.stride() == x.stride()
        assert relative(found, y) < TOLERANCE[dtype]
        if track:
            beta = 1 / step if momentum is None else momentum
            m = x.numel() // 3
            mean = (1 - beta) * mean + beta * batch_mean.flatten()
            var = (1 - beta) * var + beta * batch_var.flatten() * m / (m - 1)
            assert torch.allclose(layer.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
            assert torch.allclose(layer.running_var.double(), var, rtol=1e-5, atol=1e-5)
            assert layer.num_batches_tracked.item() == step
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    if track:
        xhat = (x.double() - mean.view(view)) / (var.view(view) + 1e-3).sqrt()
        y = xhat if weight is None else weight * xhat + bias
    assert relative(layer(x), y) < TOLERANCE[dtype]
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"momentum": 0.0}],
    ids=str,
)
def test_stands_in_for_torch(name, training, options):
    """In float64 PyTorch's layer is right: outputs, gradients and state dicts agree, both ways."""
    ours_type, torch_type, shape = SHAPES[name]
    theirs = randomised(torch_type(3, **options)).double().train(training)
    ours = ours_type(3, **options).double().train(training)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        dy = torch.randn(shape, dtype=torch.float64)
        results = []
        for layer in (ours, theirs):
            y = layer(x)
            results.append((y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)))
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results))
    states = ours.state_dict(), theirs.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-12) for key in states[0])
    assert states[0]._metadata == states[1]._metadata
    theirs.load_state_dict(states[0])
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_equal_float64_autograd_of_the_four_steps(name):
    ours, _, shape = SHAPES[name]
    layer = randomised(ours(3))
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn(shape)
    found = torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], dy)
    view = (1, 3) + (1,) * (len(shape) - 2)
    leaves = double(x, layer.weight, layer.bias)
    dims = tuple(dim for dim in range(len(shape)) if dim != 1)
    y, _, _ = four_steps(leaves[0], leaves[1].view(view), leaves[2].view(view), dims, layer.eps)
    expected = torch.autograd.grad(y, leaves, dy.double())
    assert all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected))


def test_double_backward_of_the_layer():
    layer = randomised(BatchNorm2d(2)).double()
    x = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer.eval(), (x,))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ratio", [1e3, 1e4])
def test_variance_of_large_means_in_both_layouts(layout, ratio):
    """2**20 values a channel: PyTorch 2.13's CPU layer stores a variance of 93 for 1e3 in channels_last."""
    x = (torch.randn(64, 1, 128, 128) + ratio).expand(64, 2, 128, 128).contiguous(memory_format=layout)
    layer = BatchNorm2d(2, momentum=1.0)
    y = layer(x)
    _, mean, variance = four_steps(x.double(), None, None, (0, 2, 3), 0.0)
    expected = variance.flatten() * (2**20 / (2**20 - 1))
    assert ((layer.running_var.double() - expected).abs() <= 1e-5 * expected).all()
    assert ((layer.running_mean.double() - mean.flatten()).abs() <= 1.3e-7 * ratio).all()
    assert abs(y.double().std().item() - 1) < 1e-4
    assert abs(y.double().mean().item()) < 1e-6


@pytest.mark.parametrize("name", SHAPES)
def test_at_test_time_an_output_does_not_depend_on_its_companions(name):
    ours, _, shape = SHAPES[name]
    layer = randomised(ours(3)).eval()
    x = torch.randn((9, *shape[1:]))
    together = layer(x)
    companions = x.clone()
    companions[1:] = torch.randn_like(x[1:]) * 1e3
    assert torch.equal(layer(companions)[0], together[0])
    assert torch.equal(layer(x[:1])[0], together[0])
    assert torch.equal(layer(x.flip(0)).flip(0), together)


def test_in_training_an_output_depends_on_its_companions():
    layer = BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 2)
    companions = x.clone()
    companions[1:] += 1
    assert (layer(companions)[0] - layer(x)[0]).abs().max() > 0.1


def test_scale_of_the_weights_before_it_does_not_matter():
    """BN((aW) u) = BN(W u), and the gradient to aW is 1/a of that to W (Ioffe & Szegedy, section 3.3)."""
    layer = BatchNorm1d(4, eps=0.0).double()
    u, w = torch.randn(16, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    powers = torch.randn(16, 4, dtype=torch.float64)
    results = []
    for a in (1.0, 7.0):
        weight = (a * w).requires_grad_()
        y = layer(u @ weight.T)
        (gradient,) = torch.autograd.grad((y * powers).sum(), weight)
        results.append((y, gradient))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-12)
    assert torch.allclose(results[0][1], 7 * results[1][1], atol=1e-12)


def test_recovers_the_identity():
    """gamma = sqrt(v + eps), beta = mu, as the notes say."""
    x = torch.randn(16, 3, 4, 5, dtype=torch.float64) * torch.tensor([0.1, 1, 50.0]).view(1, 3, 1, 1) + 7
    layer = BatchNorm2d(3).double()
    with torch.no_grad():
        layer.weight.copy_((x.var((0, 2, 3), correction=0) + layer.eps).sqrt())
        layer.bias.copy_(x.mean((0, 2, 3)))
    assert torch.allclose(layer(x), x, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_turned_to_half_precision(dtype):
    layer = BatchNorm2d(3).to(dtype)
    x = torch.randn(4, 3, 8, 8).to(dtype).requires_grad_()
    y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == dtype
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert relative(y, four_steps(x.double(), None, None, (0, 2, 3), 1e-5)[0]) < 1e-2
    assert layer.eval()(x).dtype == dtype


@pytest.mark.parametrize("training", [True, False])
def test_simulated_tensors(training):
    with FakeTensorMode():
        layer = BatchNorm2d(3).train(training)
        x = torch.randn(4, 3, 5, 2, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == x.shape
        assert layer.weight.grad.shape == layer.bias.grad.shape == (3,)


def test_test_time_runs_torch_s_own_operator():
    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names = []
    layer = BatchNorm2d(3).eval()
    with torch.no_grad(), Names():
        layer(torch.randn(2, 3, 4, 4))
    assert [name for name in names if "batch_norm" in name] == names[-1:]


def test_autocast_keeps_the_input_s_dtype():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm2d(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(2, 3, 6, 6))
    assert y.dtype == torch.bfloat16
    assert layer[1].running_mean.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_and_moves_nothing(training):
    layer = BatchNorm2d(3).train(training)
    before = copy.deepcopy(layer.state_dict())
    assert layer(torch.empty(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_copies_and_pickles():
    layer = randomised(BatchNorm2d(3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        x = torch.randn(2, 3, 4, 4)
        assert torch.equal(twin.eval()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("layer", "x", "parts"),
    [
        (BatchNorm2d(3), torch.randn(4, 3), ["BatchNorm2d", "(4, 3)", "(N, C, H, W)", "1d"]),
        (BatchNorm1d(3), torch.randn(4, 3, 2, 2), ["(4, 3, 2, 2)", "(N, C) or (N, C, L)", "2d"]),
        (BatchNorm3d(3), torch.randn(3), ["(3,)", "(N, C, D, H, W)", "reshape"]),
        (
            BatchNorm2d(3),
            torch.randn(4, 5, 2, 2),
            ["(4, 5, 2, 2)", "3 channels in dimension 1", "5 channels"],
        ),
        (BatchNorm2d(3), torch.randn(4, 8, 8, 3), ["(4, 8, 8, 3)", "permute dimension 3"]),
        (
            BatchNorm2d(3),
            torch.randn(1, 3, 1, 1),
            ["(1, 3, 1, 1)", "one value for each channel", "drop_last"],
        ),
        (BatchNorm1d(3), torch.randn(1, 3), ["(1, 3)", "group normalisation"]),
        (
            BatchNorm1d(3, track_running_stats=False).eval(),
            torch.randn(1, 3),
            ["one value for each channel"],
        ),
        (BatchNorm2d(3), torch.ones(4, 3, 2, 2, dtype=torch.int64), ["int64", "floating-point", ".float()"]),
        (BatchNorm2d(3).eval(), torch.ones(4, 3, 2, 2, dtype=torch.uint8), ["uint8"]),
        (BatchNorm2d(3), torch.ones(4, 3, 2, 2, dtype=torch.complex64), ["complex64"]),
    ],
)
def test_bad_input_is_refused_in_one_line_and_moves_nothing(layer, x, parts):
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ConvscopeError) as caught:
        layer(x)
    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_one_value_per_channel_is_fine_at_test_time():
    assert BatchNorm1d(3).eval()(torch.ones(1, 3)).shape == (1, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiles_in_one_graph():
    layer = randomised(BatchNorm2d(3))
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    dy = torch.randn_like(x)
    results = [(y := one(x), torch.autograd.grad(y, x, dy)[0], one.running_var) for one in (layer, compiled)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results))

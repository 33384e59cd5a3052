"""Batch norm and its activation in one layer, by kernels where they take the batch and without them."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormAct1d,
    BatchNormAct2d,
    BatchNormAct3d,
    NotFiniteWarning,
    kernels,
)
from convscope.norm.fast import choosing
from convscope.tape import TrainingPlan
from norm.four_steps import double, four_steps, relative

BATCH = (8, 16, 16, 16)  # 2**15 values: kernels take it
LAYERS = {
    "features": (BatchNorm1d, BatchNormAct1d, (2048, 16)),
    "sequences": (BatchNorm1d, BatchNormAct1d, (8, 16, 256)),
    "maps": (BatchNorm2d, BatchNormAct2d, BATCH),
    "volumes": (BatchNorm3d, BatchNormAct3d, (8, 16, 4, 8, 8)),
}
ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.Hardtanh(-1, 2),
    nn.LeakyReLU(0.1),
    nn.Identity(),
]


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
    return layer


def gradients(layer, x, dy):
    x = x.detach().requires_grad_()
    y = layer(x)
    return y, *torch.autograd.grad(y, (x, *layer.parameters()), dy)


def by_operators(layer, x, dy):
    with kernels(enabled=False):
        return gradients(copy.deepcopy(layer), x, dy)


def close(found, should, tolerance=1e-5):
    assert len(found) == len(should)
    for one, other in zip(found, should, strict=True):
        assert one.dtype == other.dtype
        assert relative(one, other) < tolerance


@pytest.fixture
def taken(monkeypatch):
    """How many batches kernels took; without numba there is nothing to see."""
    if not choosing._is_installed("numba"):
        pytest.skip("numba isn't installed")
    from convscope.norm.layers import batch

    counts = []

    def counting(*args):
        counts.append(args[0].shape)
        return original(*args)

    original = batch.batch_norm
    monkeypatch.setattr(batch, "batch_norm", counting)
    return counts


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_loss_and_gradients_against_the_float64_oracle(kind, activation, by_rows, affine, taken):
    plain, activated, size = LAYERS[kind]
    x = torch.randn(size) * 2 + 1
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if by_rows else x
    dims, view = tuple(dim for dim in range(x.dim()) if dim != 1), (1, 16) + (1,) * (x.dim() - 2)
    layer = randomised(activated(16, eps=1e-3, activation=activation, affine=affine))
    norm = plain(16, eps=1e-3, affine=affine)
    norm.load_state_dict(layer.state_dict())
    mean, variance = layer.running_mean.double(), layer.running_var.double()
    wide, weight, bias = double(x, layer.weight, layer.bias)
    shaped = (None if one is None else one.view(view) for one in (weight, bias))
    u, batch_mean, batch_variance = four_steps(wide, *shaped, dims, 1e-3)
    given = [one for one in (wide, weight, bias) if one is not None]
    for ours, should in ((layer, activation(u.clone())), (norm, u)):
        dy = torch.randn_like(x)
        found, *grads = gradients(ours, x, dy)
        expected = torch.autograd.grad(should, given, dy.double(), retain_graph=True)
        assert found.stride() == x.stride()
        assert relative(found, should) < 1e-6
        assert all(relative(one, other) < 1e-4 for one, other in zip(grads, expected, strict=True))
        unbiased = batch_variance.flatten() * (x.numel() // 16) / (x.numel() // 16 - 1)
        assert relative(ours.running_mean, 0.9 * mean + 0.1 * batch_mean.flatten()) < 1e-6
        assert relative(ours.running_var, 0.9 * variance + 0.1 * unbiased) < 1e-6
        assert ours.num_batches_tracked == 1
    assert len(taken) == 2


@pytest.mark.parametrize(
    "settings", [{"momentum": None}, {"track_running_stats": False}, {"warm_start": True}]
)
def test_averages_and_test_time_are_as_without_kernels(settings, taken):
    one = randomised(BatchNormAct2d(16, **settings))
    other = copy.deepcopy(one)
    for _ in range(3):
        x = torch.randn(BATCH) + 3
        y = one(x)
        with kernels(enabled=False):
            assert relative(y, other(x)) < 1e-6
    assert len(taken) == 3
    assert one.state_dict().keys() == other.state_dict().keys()
    for found, should in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert relative(found, should) < 1e-6
    y = one.eval()(x)
    with kernels(enabled=False):
        assert relative(y, other.eval()(x)) < 1e-6
    assert len(taken) == (4 if one.running_mean is None else 3)
    for found, should in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert relative(found, should) < 1e-6


@pytest.mark.parametrize("shape", [(8, 16, 16), (8, 1, 16, 16), BATCH])
def test_a_mask_keeps_padding_out(shape, taken):
    mask = torch.rand(shape) > 0.3
    x, layer = torch.randn(BATCH), randomised(BatchNormAct2d(16, activation=nn.Hardtanh(0.5, 1)))
    plain = BatchNorm2d(16)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x, mask), plain(x, mask).clamp(0.5, 1))
    assert torch.equal(layer.running_var, plain.running_var)
    assert not taken


def test_activations_that_kernels_do_not_know_run_behind_the_norm(taken):
    x, dy = torch.randn(BATCH), torch.randn(BATCH)

    class Doubled(nn.ReLU):
        def forward(self, x):
            return 2 * super().forward(x)

    replaced = nn.ReLU()
    replaced.forward = lambda x: 3 * x.relu()
    for activation in (nn.SiLU(), nn.PReLU(), Doubled(), replaced):
        layer = BatchNormAct2d(16, activation=activation)
        plain = BatchNorm2d(16)
        found, should = gradients(layer, x, dy), gradients(nn.Sequential(plain, activation), x, dy)
        assert all(map(torch.equal, found, should))
    assert len(taken) == 8  # the norm alone


def test_watching_all_modules_changes_no_bit():
    x, dy, seen = torch.randn(BATCH), torch.randn(BATCH), []
    layer, watched = BatchNormAct2d(16), BatchNormAct2d(16)
    should = gradients(layer, x, dy)
    handle = nn.modules.module.register_module_forward_hook(lambda module, _, y: seen.append((module, y)))
    try:
        found = gradients(watched, x, dy)
    finally:
        handle.remove()
    assert all(map(torch.equal, found, should))
    assert [module for module, _ in seen] == [watched]
    assert seen[0][1].min() == 0


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_on_the_activation_are_called(kind, taken):
    layer, calls = BatchNormAct2d(16), []
    register = getattr(layer.activation, f"register_{kind}_hook")
    handle = register(lambda module, *_: calls.append(module))
    try:
        layer(torch.randn(BATCH, requires_grad=True)).sum().backward()
    finally:
        handle.remove()
    assert layer.activation in calls
    layer(torch.randn(BATCH, requires_grad=True)).sum().backward()
    assert calls.count(layer.activation) == 1


def test_what_waits_for_backward_is_the_input_and_three_numbers_a_channel(taken):
    layer, x, saved = BatchNormAct2d(16), torch.randn(BATCH, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one):
        y = layer(x)
    sizes = sorted(one.numel() for one in saved)
    assert sizes == [16] * 5 + [x.numel()]
    assert {one.data_ptr() for one in saved} >= {x.data_ptr(), layer.weight.data_ptr(), layer.bias.data_ptr()}
    y.detach().zero_()  # nobody needs the result
    y.sum().backward()
    y = layer(x)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        y.sum().backward()


def test_a_gradient_nobody_asks_for(taken):
    layer, x = BatchNormAct2d(16), torch.randn(BATCH)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert not layer(x.detach()).requires_grad
    with torch.no_grad():
        assert not layer(x).requires_grad
    with torch.inference_mode():
        assert layer(torch.randn(BATCH)).is_inference()
    assert len(taken) == 5


def test_one_value_per_channel_is_refused_in_the_same_words(taken):
    layer, x = BatchNormAct1d(2**15), torch.randn(1, 2**15)
    with pytest.raises(ConvscopeError) as refused:
        layer(x)
    with kernels(enabled=False), pytest.raises(ConvscopeError) as also:
        layer(x)
    assert str(refused.value) == str(also.value)
    with pytest.raises(ConvscopeError, match="16 channels"):
        BatchNormAct2d(16)(torch.randn(8, 32, 16, 16))
    with pytest.raises(ConvscopeError, match="shape"):
        BatchNormAct2d(16)(torch.randn(8, 16, 16, 4, 4))
    assert not taken
    assert layer.num_batches_tracked == 0


def test_batches_that_are_not_finite_move_no_averages(taken):
    layer, x = BatchNormAct2d(16), torch.randn(BATCH)
    x[0, 3, 0, 0] = torch.nan
    before = copy.deepcopy(layer.state_dict())
    with pytest.warns(NotFiniteWarning):
        y = layer(x)
    assert torch.equal(y.isnan().any(dim=3).any(dim=2).any(dim=0), torch.arange(16) == 3)
    assert all(map(torch.equal, layer.state_dict().values(), before.values()))


def test_the_gradient_can_be_differentiated(taken):
    layer, dy = randomised(BatchNormAct2d(16, activation=nn.LeakyReLU(0.1))), torch.randn(BATCH)

    def penalty():
        x = torch.linspace(-2, 3, 2**15).view(BATCH).sin().requires_grad_()
        x.register_hook(lambda gradient: 2 * gradient)
        upstream = dy.clone().requires_grad_()
        first = torch.autograd.grad(layer(x), (x, *layer.parameters()), upstream, create_graph=True)
        total = sum((one.square() * one.detach().sin()).sum() for one in first)
        return *first, *torch.autograd.grad(total, (x, upstream, layer.weight))

    found = penalty()
    assert len(taken) == 1
    with kernels(enabled=False):
        close(found, penalty(), 1e-4)


def test_many_gradients_at_once(taken):
    layer, x = randomised(BatchNormAct2d(16)), torch.randn(BATCH, requires_grad=True)
    y, dys = layer(x), torch.randn(3, *BATCH)
    inputs = (x, *layer.parameters())
    found = torch.autograd.grad(y, inputs, dys, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, inputs, dy, retain_graph=True) for dy in dys]
    close(found, [torch.stack(one) for one in zip(*each, strict=True)])
    (found,) = torch.func.vmap(lambda dy: torch.autograd.grad(y, x, dy, retain_graph=True))(dys)
    assert relative(found, torch.stack([one[0] for one in each])) < 1e-5


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_block_that_is_run_again_gives_the_same_bits(use_reentrant, taken):
    block = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), BatchNormAct2d(16), nn.Conv2d(16, 4, 1))
    again = copy.deepcopy(block)
    x = torch.randn(8, 4, 16, 16, requires_grad=True)
    should = gradients(block, x, torch.ones(8, 4, 16, 16))
    y = checkpoint(again, x, use_reentrant=use_reentrant)
    y.sum().backward()
    found = (y, x.grad, *(parameter.grad for parameter in again.parameters()))
    assert all(map(torch.equal, found, should))
    assert all(map(torch.equal, block.state_dict().values(), again.state_dict().values()))
    assert len(taken) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_throughout_and_by_autocast(dtype, taken):
    x = torch.randn(8, 4, 16, 16)
    net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), BatchNormAct2d(16))
    with torch.autocast("cpu", dtype):
        y = net(x)
        with kernels(enabled=False):
            should = copy.deepcopy(net)(x)
    assert y.dtype == should.dtype == dtype
    assert relative(y, should) < 1e-2
    y.sum().backward()
    assert net[1].weight.grad.dtype == torch.float32
    layer, x, dy = randomised(BatchNormAct2d(16)).to(dtype), torch.randn(BATCH).to(dtype), torch.randn(BATCH)
    close(gradients(layer, x, dy.to(dtype)), by_operators(layer, x, dy.to(dtype)), 2e-2)
    assert layer.running_mean.dtype == torch.float32
    assert len(taken) == (2 if dtype == torch.bfloat16 else 0)


def test_copies_pickles_and_state_dicts(taken):
    layer = randomised(BatchNormAct2d(16, activation=nn.ReLU6(), momentum=0.3))
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
    x = torch.randn(BATCH)
    y = layer(x)
    for one in copies:
        assert torch.equal(one(x), y)
        assert torch.equal(one.running_var, layer.running_var)
    theirs = nn.BatchNorm2d(16)
    theirs.load_state_dict(layer.state_dict())
    other = BatchNormAct2d(16)
    other.load_state_dict(randomised(theirs).state_dict())
    assert relative(other(x), theirs(x).relu()) < 1e-6
    assert relative(other.running_var, theirs.running_var) < 1e-6


def test_random_numbers_and_the_given_batch_are_left_alone(taken):
    layer, x = BatchNormAct2d(16, activation=nn.ReLU(inplace=True)), torch.randn(BATCH, requires_grad=True)
    before, batch = torch.get_rng_state(), x.detach().clone()
    layer(x).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, batch)


def network(activated):
    def block(inputs, outputs):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        if activated:
            return [conv, BatchNormAct2d(outputs)]
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(3, 16), *block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )


@pytest.mark.parametrize("training", [True, False])
def test_recordings_and_tools_see_operators_that_they_know(training, taken):
    net, theirs, x = network(True).train(training), network(False).train(training), torch.randn(8, 3, 32, 32)
    operators = {call.op for call in cs.record(net, x, TrainingPlan() if training else None).calls}
    assert "relu" in operators
    assert ("convscope_normalise" if training else "batch_norm") in operators
    assert "convscope_batch_norm" not in operators
    ours, should = cs.cost(net, x), cs.cost(theirs, x)
    assert sum(row.macs for row in ours.rows) == sum(row.macs for row in should.rows)
    assert not taken
    before = copy.deepcopy(net.state_dict())
    cs.checkup(net, x)
    assert all(map(torch.equal, net.state_dict().values(), before.values()))
    assert cs.project(net, x[:1], "2", unit=3).image.shape[:2] == (32, 32)
    folded = cs.fold(net.eval(), x).model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert relative(folded(x), net(x)) < 1e-4

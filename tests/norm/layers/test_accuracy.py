"""The stated bounds, for every layer of the family, layout and dtype, against float64."""

import pytest
import torch
from torch import nn

from convscope.norm import (
    BatchNorm2d,
    BatchRenorm2d,
    GhostBatchNorm2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LocalResponseNorm,
    SyncBatchNorm,
)
from norm.four_steps import double, four_steps

SHAPE = (6, 8, 20, 24)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def per_channel(layer):
    return [parameter.detach().double().view(1, 8, 1, 1).requires_grad_() for parameter in layer.parameters()]


def by_dims(*dims):
    def oracle(layer, x, weight, bias):
        return four_steps(x, weight, bias, dims, layer.eps)[0]

    return oracle


def in_groups(layer, x, weight, bias):
    split = [tensor.reshape(-1, 4, 2, *tensor.shape[2:]) for tensor in (x, weight, bias)]
    return four_steps(*split, (2, 3, 4), layer.eps)[0].reshape(x.shape)


def in_ghost_batches(layer, x, weight, bias):
    return torch.cat([four_steps(part, weight, bias, (0, 2, 3), layer.eps)[0] for part in x.split(4)])


LAYERS = {
    "batch": (lambda: BatchNorm2d(8), by_dims(0, 2, 3)),
    "renorm, at first": (lambda: BatchRenorm2d(8), by_dims(0, 2, 3)),
    "ghost": (lambda: GhostBatchNorm2d(8, ghost_batch_size=4), in_ghost_batches),
    "sync, one process": (lambda: SyncBatchNorm(8), by_dims(0, 2, 3)),
    "instance": (lambda: InstanceNorm2d(8, affine=True), by_dims(2, 3)),
    "group": (lambda: GroupNorm(4, 8), in_groups),
    "layer of maps": (lambda: GroupNorm(1, 8), by_dims(1, 2, 3)),
    "layer": (lambda: LayerNorm(SHAPE[1:]), by_dims(1, 2, 3)),
}


def randomised(make):
    layer = make()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    return layer


def upstream(kind, y):
    """Gradients of the output: of any direction, or mostly along it, where dx is a small difference."""
    return torch.randn_like(y) if kind == "random" else y.detach() + 0.3 * torch.randn_like(y)


def run(layer, x, dy):
    y = layer(x)
    return y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e2, 1e4])
@pytest.mark.parametrize(("kind", "bound"), [("random", 1e-6), ("along", 2e-6)])
def test_float32_output_and_gradients(name, layout, ratio, kind, bound):
    """Within 1e-6 of the largest float64 gradient, whatever the mean."""
    make, oracle = LAYERS[name]
    layer = randomised(make)
    x = (torch.randn(SHAPE) + ratio).contiguous(memory_format=layout).requires_grad_()
    (x_,) = double(x)
    view = x.shape[1:] if name == "layer" else (8, 1, 1)
    affine = [p.detach().double().view(1, *view).requires_grad_() for p in layer.parameters()]
    y = oracle(layer, x_, *affine)
    dy = upstream(kind, y).float()
    expected = (y, *torch.autograd.grad(y, [x_, *affine], dy.double()))
    for ours, right in zip(run(layer, x, dy), expected):
        error = (ours.detach().double().flatten() - right.detach().flatten()).abs().max()
        assert error <= bound * right.detach().abs().max()


@pytest.mark.parametrize("name", [*LAYERS, "response"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0.0, 100.0])
def test_half_precision_is_the_float32_result_rounded_once(name, layout, dtype, ratio):
    make = (lambda: LocalResponseNorm()) if name == "response" else LAYERS[name][0]
    layer = randomised(make)
    x = (torch.randn(SHAPE) + ratio).to(dtype).contiguous(memory_format=layout).requires_grad_()
    dy = torch.randn(SHAPE).to(dtype)
    wide = x.detach().float().requires_grad_()
    for index, (ours, right) in enumerate(zip(run(layer, x, dy), run(layer, wide, dy.float()))):
        if index > 1:  # gradients of gamma and beta, which are float32 here: sums in another order
            assert ours.dtype == torch.float32
            assert (ours - right).abs().max() <= 1e-6 * right.abs().max()
            continue
        rounded = right.to(dtype)
        assert ours.dtype == dtype
        away = torch.maximum(
            (torch.nextafter(rounded, rounded.new_tensor(float("inf"))) - rounded).abs(),
            (torch.nextafter(rounded, rounded.new_tensor(-float("inf"))) - rounded).abs(),
        )
        assert ((ours - rounded).abs() <= away).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 10.0])
def test_float32_gradients_of_local_response_norm(layout, ratio):
    """Against the formula of the paper, channel by channel: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
    layer = LocalResponseNorm()
    x = (torch.randn(SHAPE) + ratio).contiguous(memory_format=layout).requires_grad_()
    (x_,) = double(x)
    windows = [x_[:, max(0, i - 2) : i + 3].square().sum(1) for i in range(8)]
    y = x_ / (2 + 1e-4 * torch.stack(windows, 1)) ** 0.75
    dy = torch.randn(SHAPE)
    (expected,) = torch.autograd.grad(y, x_, dy.double())
    (dx,) = torch.autograd.grad(layer(x), x, dy)
    assert (dx.double() - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_batch_norm_in_both_modes(layout, ratio, training):
    """At test time dx is γ r dy, and what γ gets is centred, too."""
    layer = randomised(lambda: BatchNorm2d(8)).train(training)
    with torch.no_grad():
        layer.running_mean.fill_(ratio)
    x = (torch.randn(SHAPE) + ratio).contiguous(memory_format=layout).requires_grad_()
    dy = torch.randn(SHAPE)
    (x_,), affine = double(x), per_channel(layer)
    if training:
        y = four_steps(x_, *affine, (0, 2, 3), layer.eps)[0]
    else:
        y = (x_ - ratio) / (1 + layer.eps) ** 0.5 * affine[0] + affine[1]
    expected = torch.autograd.grad(y, [x_, *affine], dy.double())
    for ours, right in zip(run(layer, x, dy)[1:], expected):
        error = (ours.double().flatten() - right.flatten()).abs().max()
        assert error <= 1e-6 * right.abs().max()

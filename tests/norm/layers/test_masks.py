"""Masked statistics against explicit loops over the values that count, gathered one set after the other."""

import copy
import math

import pytest
import torch
from torch import nn

from convscope.norm.layers.instance import InstanceNorm1d
from norm.four_steps import relative
from norm.layers.masked import (
    CASES,
    LAYOUTS,
    PER_SAMPLE,
    TOLERANCE,
    Case,
    affine,
    built,
    by_loops,
    mask_shapes,
    moved,
    random_mask,
    whole,
)

TABLE = [
    pytest.param(name, shape, layout, id=f"{name}-{shape}-{layout}")
    for name, case in CASES.items()
    for shape in mask_shapes(case)
    for layout in LAYOUTS.get(len(case.shape), [None])
]


@pytest.mark.parametrize(("name", "mask_shape", "layout"), TABLE)
def test_outputs_gradients_and_running_averages_by_loops(name, mask_shape, layout):
    case = CASES[name]
    layer = built(case)
    running = [layer.running_mean, layer.running_var] if case.kind else []
    running, number = [average.clone() for average in running], 0
    for step in range(2):
        x = torch.randn(case.shape, dtype=torch.float64) * 2 + step
        x = (x if layout is None else x.contiguous(memory_format=layout)).requires_grad_()
        mask, dy = random_mask(mask_shape, case), torch.randn_like(x)
        every = whole(mask, case.shape)
        x_, *parameters = (t.detach().clone().requires_grad_() for t in (x, *layer.parameters()))
        xhat, found = by_loops(case, layer, x_, every)
        expected = affine(layer, parameters, xhat, every)
        y = layer(x, mask)
        assert y.stride() == x.stride()
        assert torch.allclose(y, expected, atol=1e-11)
        gradients = torch.autograd.grad(y, [x, *layer.parameters()], dy)
        oracle = torch.autograd.grad(expected, [x_, *parameters], dy)
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(gradients, oracle, strict=True))
        assert (gradients[0] == 0)[~every].all()
        assert (y == 0)[~every].all()
        if case.kind:
            *running, number = moved(case, layer, found, running, number)
            assert torch.allclose(layer.running_mean, running[0], rtol=1e-11)
            assert torch.allclose(layer.running_var, running[1], rtol=1e-11)
            assert layer.num_batches_tracked is None or case.kind == "instance" or (
                layer.num_batches_tracked.item() == number
            )  # fmt: skip


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize(
    "name", ["batch", "batch of volumes", "renorm", "ghost", "instance", "group", "layer"]
)
@pytest.mark.parametrize("whole_mask", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_results_do_not_depend_on_blocks(name, whole_mask):
    case = CASES[name]
    shape = case.shape if whole_mask else (case.shape[0], 1, *case.shape[2:])
    for layout in LAYOUTS[len(case.shape)]:
        test_outputs_gradients_and_running_averages_by_loops(name, shape, layout)


def everything(layer, x, mask, dy):
    """Output, all gradients and all buffers of one training step."""
    x = x.detach().requires_grad_()
    y = layer(x, mask)
    return (y, *torch.autograd.grad(y, [x, *layer.parameters()], dy), *layer.buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_may_hold_anything_to_the_last_bit(name, training, dtype):
    case = CASES[name]
    layer = built(case, torch.float32).train(training)
    x, dy = torch.randn(case.shape).to(dtype), torch.randn(case.shape).to(dtype)
    mask = random_mask((case.shape[0], 1, *case.shape[2:]), case)
    padding = ~whole(mask, case.shape)
    results = [
        everything(copy.deepcopy(layer), x.masked_fill(padding, value), mask, dy.masked_fill(padding, noise))
        for value, noise in (
            (0.0, 0.0),
            (math.nan, 7.0),
            (math.inf, math.nan),
            (-math.inf, 1.0),
            (1e30, 1e30),
        )
    ]
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
        assert all(part.isfinite().all() for part in result)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("parameters_too", [False, True])
def test_lower_precision(name, dtype, parameters_too):
    case = CASES[name]
    layer = built(case, dtype if parameters_too else torch.float32)
    exact = copy.deepcopy(layer).double()
    x, dy = torch.randn(case.shape).to(dtype), torch.randn(case.shape).to(dtype)
    mask = random_mask((case.shape[0], *case.shape[1:]), case)
    x_, *leaves = (t.detach().double().requires_grad_() for t in (x, *layer.parameters()))
    every = whole(mask, case.shape)
    xhat, found = by_loops(case, exact, x_, every)
    y_ = affine(layer, leaves, xhat, every)
    oracle = (y_, *torch.autograd.grad(y_, [x_, *leaves], dy.double()))
    x = x.requires_grad_()
    y = layer(x, mask)
    results = (y, *torch.autograd.grad(y, [x, *layer.parameters()], dy))
    assert y.dtype == results[1].dtype == dtype
    for ours, theirs in zip(results, oracle, strict=True):
        assert relative(ours, theirs) < 3 * TOLERANCE[dtype]
    if case.kind:
        before = [exact.running_mean, exact.running_var]
        mean, variance, _ = moved(case, exact, found, before, 0)
        assert layer.running_mean.dtype == torch.float32
        assert torch.allclose(layer.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        assert torch.allclose(layer.running_var.double(), variance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_mask_of_all_is_none(name, training, dtype):
    """Within rounding: sums are divided by a count that is a number or a tensor."""
    case = CASES[name]
    layer = built(case, torch.float64 if dtype == torch.float64 else torch.float32).train(training)
    x, dy = torch.randn(case.shape).to(dtype), torch.randn(case.shape).to(dtype)
    mask = torch.ones(case.shape[0], 1, *case.shape[2:], dtype=torch.bool)
    masked, plain = (everything(copy.deepcopy(layer), x, m, dy) for m in (mask, None))
    for a, b in zip(masked, plain, strict=True):
        assert relative(a, b) < (1e-12 if dtype == torch.float64 else 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name].shape) > 2 and name != "layer"])
def test_more_padding_changes_nothing(name):
    """Outputs where the mask is True, gradients and running averages; layer norm has γ for each position."""
    case = CASES[name]
    layer = built(case)
    x, dy = torch.randn(case.shape, dtype=torch.float64), torch.randn(case.shape, dtype=torch.float64)
    mask = random_mask((case.shape[0], *case.shape[2:]), case)
    more = [0, 3, *([2, 1] * (x.dim() - 3))]
    wider = [nn.functional.pad(t, more, value=5.0) for t in (x, dy)], nn.functional.pad(mask, more)
    short = everything(copy.deepcopy(layer), x, mask, dy)
    long = everything(copy.deepcopy(layer), wider[0][0], wider[1], wider[0][1])
    every, every_wide = whole(mask, x.shape), whole(wider[1], wider[0][0].shape)
    assert torch.allclose(long[0][every_wide], short[0][every], atol=1e-12)
    assert torch.allclose(long[1][every_wide], short[1][every], atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(long[2:], short[2:], strict=True))


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_samples_stay_independent_of_one_another_s_padding(name):
    case = CASES[name]
    layer = built(case)
    x = torch.randn(case.shape, dtype=torch.float64)
    mask = random_mask((case.shape[0], 1, *case.shape[2:]), case)
    together = layer(x, mask)
    for n in range(case.shape[0]):
        if mask[n].any():
            assert torch.allclose(layer(x[n : n + 1], mask[n : n + 1]), together[n : n + 1], atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_eval_is_the_layer_s_own_where_the_mask_is_true(name):
    case = CASES[name]
    layer = built(case).eval()
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(case.shape, dtype=torch.float64)
    mask = random_mask((case.shape[0], 1, *case.shape[2:]), case)
    every, y = whole(mask, case.shape), layer(x, mask)
    if case.kind:
        view = (1, -1) + (1,) * (x.dim() - 2)
        xhat = (x - layer.running_mean.view(view)) / (layer.running_var.view(view) + layer.eps).sqrt()
    else:
        xhat, _ = by_loops(case, layer, x, every)
    assert torch.allclose(y, affine(layer, list(layer.parameters()), xhat, every) * every, atol=1e-12)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


@pytest.mark.parametrize("name", CASES)
def test_double_backward(name):
    case = CASES[name]
    layer = built(case)
    mask = random_mask((case.shape[0], 1, *case.shape[2:]), case)
    if case.kind == "renorm":  # r and d are constants to the gradient, and here to differences too
        layer.r_max = 1.0
        layer.running_mean.fill_(50.0)
    buffers = {key: buffer.clone() for key, buffer in layer.named_buffers()}

    def function(x):
        for key, buffer in layer.named_buffers():
            buffer.copy_(buffers[key])
        return layer(x, mask)

    x = torch.randn(case.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x,), fast_mode=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_gradients_of_every_sample_by_vmap(name):
    case = CASES[name]
    layer = built(case)
    if case.kind:
        layer.track_running_stats = False
    x = torch.randn(case.shape, dtype=torch.float64)
    mask = random_mask((case.shape[0], 1, *case.shape[2:]), case)
    mask[-1, ..., 0] = True  # what is looked at can't be refused under vmap

    def loss(parameters, sample, its_mask):
        y = torch.func.functional_call(layer, parameters, (sample[None], its_mask[None]))
        return y.pow(3).sum()

    parameters = {key: p.detach() for key, p in layer.named_parameters()}
    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, mask)
    for n in range(case.shape[0]):
        leaves = [p.detach().clone().requires_grad_() for p in layer.parameters()]
        one = Case(case.make, (1, *case.shape[1:]), case.set_of, "")
        every = whole(mask[n : n + 1], one.shape)
        xhat, _ = by_loops(one, layer, x[n : n + 1], every)
        each = torch.autograd.grad(affine(layer, leaves, xhat, every).pow(3).sum(), leaves)
        assert all(torch.allclose(a[n], b, atol=1e-10) for a, b in zip(together.values(), each, strict=True))


@pytest.mark.parametrize("track", [False, True])
def test_instance_norm_without_a_batch(track):
    layer = InstanceNorm1d(3, affine=True, track_running_stats=track).double()
    twin = copy.deepcopy(layer)
    x, mask = torch.randn(3, 6, dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)
    for given in (mask, mask.expand(3, 6), mask[None]):
        assert torch.equal(layer(x, given), twin(x[None], mask[None])[0])

"""Masked statistics against explicit loops over the values that count, gathered one set after the other."""

import copy
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.layers.ghost import GhostBatchNorm1d, GhostBatchNorm2d
from convscope.norm.layers.group import GroupNorm
from convscope.norm.layers.instance import InstanceNorm1d, InstanceNorm2d
from convscope.norm.layers.layer import LayerNorm
from convscope.norm.layers.renorm import BatchRenorm1d, BatchRenorm2d
from norm.four_steps import relative

RENORM = {"r_max": 1.2, "d_max": 0.3, "relaxation": None}


@dataclass(frozen=True)
class Case:
    """A layer for an input, and which set each value belongs to, by its sample n and channel c."""

    make: object
    shape: tuple
    set_of: object  # (n, c) -> the set's name
    kind: str = ""


def per_channel(n, c):
    return (c,)


CASES = {
    "batch of features": Case(lambda: BatchNorm1d(4), (6, 4), per_channel, "batch"),
    "batch of sequences": Case(lambda: BatchNorm1d(4), (5, 4, 6), per_channel, "batch"),
    "batch, C == L == N": Case(lambda: BatchNorm1d(5), (5, 5, 5), per_channel, "batch"),
    "batch": Case(lambda: BatchNorm2d(4), (5, 4, 3, 6), per_channel, "batch"),
    "batch of volumes": Case(lambda: BatchNorm3d(2), (3, 2, 3, 2, 4), per_channel, "batch"),
    "batch, cumulative": Case(lambda: BatchNorm2d(4, momentum=None), (5, 4, 3, 6), per_channel, "batch"),
    "batch, not affine": Case(lambda: BatchNorm2d(4, affine=False), (5, 4, 3, 6), per_channel, "batch"),
    "renorm": Case(lambda: BatchRenorm2d(4, **RENORM), (5, 4, 3, 6), per_channel, "renorm"),
    "renorm of features": Case(lambda: BatchRenorm1d(4, **RENORM), (6, 4), per_channel, "renorm"),
    "ghost": Case(
        lambda: GhostBatchNorm2d(4, ghost_batch_size=2), (5, 4, 3, 6), lambda n, c: (n // 2, c), "ghost"
    ),
    "ghost, equal parts": Case(
        lambda: GhostBatchNorm1d(4, ghost_batch_size=3), (6, 4, 6), lambda n, c: (n // 3, c), "ghost"
    ),
    "instance": Case(lambda: InstanceNorm2d(4, affine=True), (5, 4, 3, 6), lambda n, c: (n, c)),
    "instance of sequences": Case(
        lambda: InstanceNorm1d(4, affine=True, track_running_stats=True, momentum=0.3),
        (5, 4, 6),
        lambda n, c: (n, c),
        "instance",
    ),
    "group": Case(lambda: GroupNorm(2, 4), (5, 4, 3, 6), lambda n, c: (n, c // 2)),
    "group of features": Case(lambda: GroupNorm(2, 8), (5, 8), lambda n, c: (n, c // 4)),
    "one group, C == L": Case(lambda: GroupNorm(1, 6), (5, 6, 6), lambda n, c: (n,)),
    "layer": Case(lambda: LayerNorm((4, 3, 6)), (5, 4, 3, 6), lambda n, c: (n,)),
}
WITH_RUNNING = [name for name, case in CASES.items() if case.kind]
PER_SAMPLE = ["instance", "instance of sequences", "group", "layer"]
LAYOUTS = {4: [None, torch.channels_last], 5: [None, torch.channels_last_3d]}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def built(case, dtype=torch.float64):
    layer = case.make()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
    return layer.to(dtype)


def mask_shapes(case):
    """The shapes that a mask may have: without channels, one for all channels, whole, and broadcast."""
    n, c, *space = case.shape
    shapes = [(n, 1, *space), (n, c, *space), (n, 1, *([1] * len(space)))]
    if not isinstance(case.make(), LayerNorm):
        shapes.append((n, *space))
    if space:
        shapes += [(1, 1, *space), (1, c, *space), (n, c, *([1] * (len(space) - 1)), space[-1])]
    return shapes


def random_mask(shape, case):
    """A mask that leaves every set of more than a sample at least two values."""
    mask = torch.rand(shape) < 0.6
    if shape[0] == 1 or len(case.shape) == 2:
        mask[0] = True
        mask[-1] = True
    if case.kind == "ghost":
        mask[::2] = True
    if shape[0] == case.shape[0] and case.kind != "ghost" and len(case.shape) > 2:
        mask[0], mask[-1] = True, False  # a sample with nothing that counts
    return mask


def whole(mask, shape):
    """The mask, written out for every value."""
    mask = mask[:, None] if mask.dim() == len(shape) - 1 else mask
    return mask.expand(shape)


def by_loops(case, layer, x, mask):
    """Return output and, set by set, count, mean and biased variance, from the values that count alone.

    In float64 and differentiable; r and d of renorm are cut out of the graph.
    """
    n, c = case.shape[:2]
    members = {}
    for at in itertools.product(range(n), range(c)):
        members.setdefault(case.set_of(*at), []).append(at)
    xhat, found = torch.zeros_like(x), {}
    for name, places in members.items():
        gathered = torch.cat([x[place][mask[place]] for place in places])
        count = gathered.numel()
        if count == 0:
            found[name] = (0, None, None)
            continue
        mean = gathered.sum() / count
        variance = ((gathered - mean) ** 2).sum() / count
        found[name] = (count, mean.detach(), variance.detach())
        deviation = torch.sqrt(variance + layer.eps)
        for place in places:
            row = (x[place].masked_fill(~mask[place], 0) - mean) / deviation
            if case.kind == "renorm":
                channel = place[1]
                sigma = math.sqrt(layer.running_var[channel].item() + layer.eps)
                r = min(max(deviation.item() / sigma, 1 / layer.r_max), layer.r_max)
                d = (mean.item() - layer.running_mean[channel].item()) / sigma
                row = row * r + min(max(d, -layer.d_max), layer.d_max)
            index = torch.zeros(x.shape[:2], dtype=torch.bool)
            index[place] = True
            index = index.view(*index.shape, *[1] * (x.dim() - 2))
            xhat = torch.where(index & mask, row.expand_as(x) if row.dim() == 0 else row, xhat)
    return xhat, found


def affine(layer, parameters, xhat, mask):
    view = (1, -1) + (1,) * (xhat.dim() - 2)
    if not parameters:
        return xhat
    weight, bias = (p if isinstance(layer, LayerNorm) else p.view(view) for p in parameters)
    return torch.where(mask, xhat * weight + bias, torch.zeros_like(xhat))


def moved(case, layer, found, running, number):
    """Return the running averages after a batch, in float64, and how many batches it was."""
    mean, variance = (average.clone() for average in running)
    if case.kind == "ghost":
        batches = [[found[part, c] for c in range(len(mean))] for part in sorted({part for part, _ in found})]
    elif case.kind == "instance":
        batches = [[]]
        for c in range(len(mean)):
            sets = [entry for (_, channel), entry in found.items() if channel == c and entry[0] > 1]
            means = sum(entry[1] for entry in sets) / len(sets)
            unbiased = sum(entry[2] * entry[0] / (entry[0] - 1) for entry in sets) / len(sets)
            batches[0].append((math.inf, means, unbiased))
    else:
        batches = [[found[(c,)] for c in range(len(mean))]]
    for batch in batches:
        number += 1
        weight = 1 / number if layer.momentum is None else layer.momentum
        for c, (count, batch_mean, batch_variance) in enumerate(batch):
            unbiased = batch_variance * (1 if count == math.inf else count / (count - 1))
            mean[c] = (1 - weight) * mean[c] + weight * batch_mean
            variance[c] = (1 - weight) * variance[c] + weight * unbiased
    return mean, variance, number


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
@pytest.mark.parametrize("whole_mask", [False, True])
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


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_of_nothing_is_refused_with_the_layer_s_path(name, training):
    case = CASES[name]
    layer = built(case).train(training)
    before = copy.deepcopy(layer.state_dict())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def forward(self, x, mask):
            return self.inner(x, mask)

    mask = torch.zeros(case.shape[0], 1, *case.shape[2:], dtype=torch.bool)
    with pytest.raises(ConvscopeError, match="at 'inner' given a mask that is False everywhere") as caught:
        Net()(torch.randn(case.shape, dtype=torch.float64), mask)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (torch.ones(5, 3, 6), ["torch.float32", "boolean", "mask > 0"]),
        (torch.ones(5, 3, 6, dtype=torch.int64), ["torch.int64"]),
        (torch.ones(5, 3, 5, dtype=torch.bool), ["(5, 3, 5)", "(5, 4, 3, 6)", "expected shape (5, 3, 6)"]),
        (torch.ones(4, 3, 6, dtype=torch.bool), ["(4, 3, 6)"]),
        (torch.ones(5, 2, 3, 6, dtype=torch.bool), ["(5, 2, 3, 6)"]),
        (torch.ones(3, 6, dtype=torch.bool), ["(3, 6)"]),
        (torch.ones((), dtype=torch.bool), ["mask of shape ()"]),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, parts):
    layer = BatchNorm2d(4)
    with pytest.raises(ConvscopeError) as caught:
        layer(torch.randn(5, 4, 3, 6), mask)
    assert all(part in str(caught.value) for part in parts)
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("layer", "alone"),
    [(BatchNorm2d(2), 1), (GhostBatchNorm2d(2, ghost_batch_size=2), 0), (BatchRenorm2d(2), 1)],
)
def test_too_few_values_are_refused_and_move_nothing(layer, alone):
    """One value of a channel; for ghost batch norm a ghost batch that is all padding."""
    mask = torch.ones(4, 2, 2, 2, dtype=torch.bool)
    if alone:
        mask[:, 1] = False
        mask[0, 1, 0, 0] = True
    else:
        mask[2:] = False
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ConvscopeError, match=f"leave {alone} of the values of a channel"):
        layer(torch.randn(4, 2, 2, 2), mask)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_layer_norm_takes_no_mask_without_channels():
    """(N, L) for (N, L, D) would be read as (N, 1, D) where L == D: it is refused."""
    with pytest.raises(ConvscopeError, match="mask of shape"):
        LayerNorm(5)(torch.randn(2, 5, 5), torch.ones(2, 5, dtype=torch.bool))


def test_an_empty_batch_has_an_empty_mask():
    layer = BatchNorm2d(4)
    y = layer(torch.empty(0, 4, 3, 6), torch.empty(0, 3, 6, dtype=torch.bool))
    assert y.shape == (0, 4, 3, 6)
    assert layer.num_batches_tracked.item() == 0

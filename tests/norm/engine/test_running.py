import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from convscope.norm.engine.running import NotFiniteWarning, new_value_weight, unbiased, update_running
from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d
from convscope.norm.layers.ghost import GhostBatchNorm2d
from convscope.norm.layers.instance import InstanceNorm2d
from convscope.norm.layers.renorm import BatchRenorm2d


@settings(deadline=None, max_examples=50)
@given(
    beta=st.floats(0, 1),
    start=st.floats(-100, 100),
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=6),
)
def test_running_average_follows_the_notes_formula_step_by_step(beta, start, values):
    running = torch.tensor([start], dtype=torch.float64)
    expected = start
    for value in values:
        update_running(running, torch.tensor([value], dtype=torch.float64), beta)
        expected = (1 - beta) * expected + beta * value
        assert running.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_no_momentum_gives_the_plain_average(values):
    running = torch.zeros(1, dtype=torch.float64)
    for number, value in enumerate(values, start=1):
        weight = new_value_weight(None, torch.tensor(number))
        update_running(running, torch.tensor([value], dtype=torch.float64), weight)
    assert running.item() == pytest.approx(sum(values) / len(values), rel=1e-12, abs=1e-12)


def test_weight_one_replaces_and_weight_zero_keeps():
    running = torch.tensor([3.0])
    update_running(running, torch.tensor([5.0]), 0.0)
    assert running.item() == 3
    update_running(running, torch.tensor([5.0]), 1.0)
    assert running.item() == 5


def test_nobody_counts_batches():
    assert new_value_weight(None, None) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_buffer_keeps_its_dtype_and_storage(dtype):
    running = torch.zeros(2, dtype=dtype)
    pointer = running.data_ptr()
    update_running(running, torch.tensor([1.0, 2.0]), torch.tensor(0.25, dtype=torch.float64))
    assert (running.data_ptr(), running.dtype) == (pointer, dtype)
    assert running.tolist() == [0.25, 0.5]


def test_unbiased_variance():
    values = torch.randn(7, dtype=torch.float64)
    biased = ((values - values.mean()) ** 2).mean(0, keepdim=True)
    assert unbiased(biased, 7).item() == pytest.approx(values.var().item())


@pytest.mark.parametrize("count", [10**6, torch.tensor(10**6)])
def test_unbiased_variance_near_the_largest_number(count):
    """A product with the count would overflow, and pass for a batch that isn't finite."""
    assert unbiased(torch.tensor([1e34]), count).item() == pytest.approx(1e34, rel=1e-5)


def test_cumulative_average_runs_on_simulated_tensors():
    with FakeTensorMode():
        layer = BatchNorm1d(3, momentum=None)
        layer(torch.randn(4, 3))
        assert layer.running_mean.shape == (3,)


def test_layer_moves_its_buffers_by_the_formula():
    layer = BatchNorm1d(2, momentum=0.3).double()
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for step in range(4):
        x = torch.randn(5, 2, dtype=torch.float64) * (step + 1) + step
        layer(x)
        mean = (1 - 0.3) * mean + 0.3 * x.sum(0) / 5
        var = (1 - 0.3) * var + 0.3 * ((x - x.sum(0) / 5) ** 2).sum(0) / 4
    assert torch.allclose(layer.running_mean, mean, rtol=1e-12)
    assert torch.allclose(layer.running_var, var, rtol=1e-12)
    assert layer.num_batches_tracked.item() == 4


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
def test_warm_start_and_cumulative_averages_by_a_loop(momentum):
    """The new value weighs max(m, 1/n) at the n-th batch; without a momentum 1/n; in float64."""
    layer = BatchNorm1d(2, momentum=momentum, warm_start=momentum is not None).double()
    mean, variance = [0.0, 0.0], [1.0, 1.0]
    for n in range(1, 25):
        x = torch.randn(4, 2, dtype=torch.float64) * n + n
        layer(x)
        weight = 1 / n if momentum is None else max(momentum, 1 / n)
        for c in range(2):
            values = x[:, c].tolist()
            centre = sum(values) / 4
            mean[c] += weight * (centre - mean[c])
            variance[c] += weight * (sum((value - centre) ** 2 for value in values) / 3 - variance[c])
        assert layer.running_mean.tolist() == pytest.approx(mean, rel=1e-12)
        assert layer.running_var.tolist() == pytest.approx(variance, rel=1e-12)


def test_a_warm_start_leaves_no_trace_of_the_starting_values():
    layer = BatchNorm1d(1, warm_start=True, momentum=0.1)
    layer.running_mean.fill_(1e6)
    x = torch.randn(50, 1)
    layer(x)
    assert layer.running_mean.item() == pytest.approx(x.mean().item(), abs=1e-6)
    assert layer.running_var.item() == pytest.approx(x.var().item(), rel=1e-5)
    assert "warm_start=True" in repr(layer)


LAYERS = {
    "batch": lambda: BatchNorm2d(3),
    "batch, warm start": lambda: BatchNorm2d(3, warm_start=True),
    "batch, cumulative": lambda: BatchNorm2d(3, momentum=None),
    "instance": lambda: InstanceNorm2d(3, track_running_stats=True),
    "renorm": lambda: BatchRenorm2d(3, relaxation=None),
    "ghost": lambda: GhostBatchNorm2d(3, ghost_batch_size=2),
}


def one_step(layer, x, use_reentrant=None):
    block = nn.Sequential(nn.Conv2d(3, 3, 1), layer, nn.ReLU())
    with torch.no_grad():
        block[0].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
    x = x.clone().requires_grad_()
    y = block(x) if use_reentrant is None else checkpoint(block, x, use_reentrant=use_reentrant)
    y.square().sum().backward()
    return [x.grad, *(p.grad for p in block.parameters()), *(b.clone() for b in layer.buffers())]


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_checkpointed_block_moves_the_averages_once(kind, use_reentrant):
    x = torch.randn(6, 3, 4, 4)
    torch.manual_seed(1)
    plain = one_step(LAYERS[kind](), x)
    torch.manual_seed(1)
    again = one_step(LAYERS[kind](), x, use_reentrant)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_where_torch_s_layer_moves_them_twice(use_reentrant):
    """PyTorch 2.13; pytorch#96136."""
    layer = nn.BatchNorm2d(3)
    one_step(layer, torch.randn(6, 3, 4, 4), use_reentrant)
    assert layer.num_batches_tracked.item() == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_that_is_not_finite_moves_nothing_and_is_reported_once(kind, bad):
    net = nn.Sequential(nn.Identity(), nn.Sequential(LAYERS[kind]()))
    layer = net[1][0]
    good, spoilt = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    spoilt[:, 1, 2, 2] = bad  # every sample, and with it every ghost batch
    net(good)
    before = copy.deepcopy(layer.state_dict())
    with pytest.warns(NotFiniteWarning, match=rf"{type(layer).__name__} at '1\.0' met values") as caught:
        y = net(spoilt)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert y[:, 0].isfinite().all()
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(spoilt)
        net(good)
    twin = LAYERS[kind]()
    twin(good), twin(good)
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), twin.buffers(), strict=True))


def test_every_layer_reports_for_itself():
    net = nn.Sequential(BatchNorm2d(3), nn.Conv2d(3, 3, 1), BatchNorm2d(3))
    with pytest.warns(NotFiniteWarning) as caught:
        net(torch.full((2, 3, 4, 4), float("nan")))
    assert ["'0'" in str(one.message) for one in caught] == [True, False]
    assert "'2'" in str(caught[1].message)


def test_a_variance_that_overflows_moves_nothing():
    layer = BatchNorm1d(1)
    with pytest.warns(NotFiniteWarning):
        layer(torch.tensor([[1e30], [-1e30]]))
    assert (layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()) == (
        0,
        1,
        0,
    )


HALVES = [torch.float16, torch.bfloat16]


def trained(kind="batch"):
    """A layer whose averages have more digits than half precision."""
    layer = LAYERS[kind]()
    for _ in range(3):
        layer(torch.randn(6, 3, 4, 4) * 1.2345 + 0.6789)
    return layer


def averages(layer):
    return [layer.running_mean.clone(), layer.running_var.clone()]


TURNS = {
    "half": lambda layer: layer.half(),
    "bfloat16": lambda layer: layer.bfloat16(),
    "to half": lambda layer: layer.to(torch.float16),
    "to bfloat16": lambda layer: layer.to(dtype=torch.bfloat16),
    "to another tensor": lambda layer: layer.to(torch.zeros(1, dtype=torch.float16)),
    "type": lambda layer: layer.type(torch.bfloat16),
    "half in a network": lambda layer: nn.Sequential(nn.Sequential(layer)).half()[0][0],
    "half, bfloat16, float": lambda layer: layer.half().bfloat16().float(),
    "copied, then half": lambda layer: copy.deepcopy(layer).half(),
    "half, then copied": lambda layer: copy.deepcopy(layer.half()),
    "half, then pickled": lambda layer: pickle.loads(pickle.dumps(layer.half())),
    "cpu": lambda layer: layer.half().to("cpu"),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", LAYERS)
def test_averages_stay_in_float32_unrounded(kind, turn):
    layer = trained(kind)
    before = averages(layer)
    turned = TURNS[turn](layer)
    assert [b.dtype for b in averages(turned)] == [torch.float32] * 2
    assert all(torch.equal(a, b) for a, b in zip(averages(turned), before, strict=True))
    if layer.affine and "float" not in turn.split():
        assert turned.weight.dtype in HALVES or "type" in turn


@pytest.mark.parametrize("kind", LAYERS)
def test_double_widens_the_averages_exactly_and_float_takes_them_back(kind):
    layer = trained(kind)
    before = averages(layer)
    assert [b.dtype for b in averages(layer.double())] == [torch.float64] * 2
    assert all(torch.equal(a, b.double()) for a, b in zip(averages(layer), before, strict=True))
    layer.running_mean += 1e-12  # float64 holds more; half precision must not take the rest too
    precise = averages(layer)
    layer.half()
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(averages(layer), precise, strict=True))
    layer.float()
    assert [b.dtype for b in averages(layer)] == [torch.float32] * 2
    assert all(torch.equal(a, b) for a, b in zip(averages(layer), before, strict=True))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_layer_built_in_half_precision(dtype):
    for make in (BatchNorm2d, BatchRenorm2d, GhostBatchNorm2d):
        layer = make(3, dtype=dtype)
        assert layer.weight.dtype == dtype
        assert [b.dtype for b in averages(layer)] == [torch.float32] * 2
    layer = InstanceNorm2d(3, track_running_stats=True, dtype=dtype)
    assert [b.dtype for b in averages(layer)] == [torch.float32] * 2


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("assign", [False, True])
def test_a_half_precision_checkpoint_is_widened_as_it_loads(dtype, assign):
    theirs = nn.BatchNorm2d(3).to(dtype)
    theirs(torch.randn(4, 3, 5, 5).to(dtype))
    ours = nn.Sequential(BatchNorm2d(3))
    ours.load_state_dict({f"0.{key}": value for key, value in theirs.state_dict().items()}, assign=assign)
    assert [b.dtype for b in averages(ours[0])] == [torch.float32] * 2
    assert torch.equal(ours[0].running_mean, theirs.running_mean.float())
    assert ours[0].weight.dtype == (dtype if assign else torch.float32)
    assert ours[0](torch.randn(4, 3, 5, 5)).isfinite().all()
    assert ours[0].num_batches_tracked.item() == 2


def test_a_float64_checkpoint_is_not_narrowed_if_assigned():
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3).double()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    assert ours.running_mean.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_by_way_of_the_meta_device(dtype):
    layer = trained().to(dtype)
    before = averages(layer)
    hollow = copy.deepcopy(layer).to("meta")
    assert [(b.device.type, b.dtype) for b in averages(hollow)] == [("meta", torch.float32)] * 2
    filled = hollow.to_empty(device="cpu")
    filled.load_state_dict(layer.state_dict())
    assert [(b.device.type, b.dtype) for b in averages(filled)] == [("cpu", torch.float32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(averages(filled), before, strict=True))
    on_meta = BatchNorm2d(3, device="meta", dtype=dtype).half()
    assert [(b.device.type, b.dtype) for b in averages(on_meta)] == [("meta", torch.float32)] * 2
    on_meta.load_state_dict(layer.state_dict(), assign=True)
    assert all(torch.equal(a, b) for a, b in zip(averages(on_meta), before, strict=True))


def test_without_running_averages_there_is_nothing_to_widen():
    layer = BatchNorm2d(3, track_running_stats=False).half()
    assert layer.running_mean is layer.running_var is None
    assert layer(torch.randn(2, 3, 4, 4).half()).dtype == torch.float16


@pytest.mark.parametrize("kind", ["batch", "renorm", "ghost"])
def test_small_momentum_in_bfloat16_reaches_the_truth_where_torch_stalls(kind):
    """Mean 3, momentum 0.01: PyTorch 2.13's average stops near 2, a hundredth of the rest is rounded away."""
    ours, theirs = LAYERS[kind](), nn.BatchNorm2d(3)
    found = []
    for layer in (ours, theirs):
        layer.momentum = 0.01
        layer.bfloat16()
        for _ in range(1500):
            layer((torch.randn(16, 3, 2, 2) * 0.5 + 3).bfloat16())
        found.append(layer.running_mean.float())
    assert ((found[0] - 3).abs() < 0.05).all()
    assert ((found[1] - 2).abs() < 0.3).all()

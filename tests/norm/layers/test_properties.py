"""The algebra of the family: what holds for every input, whatever the numbers."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convscope.norm import (
    MEMBERS,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    normalise,
)
from convscope.norm.axes import legend
from convscope.norm.engine.merging import Summary, merged
from convscope.norm.engine.statistics import summary

BATCH = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d, 5: BatchNorm3d}
INSTANCE = {3: InstanceNorm1d, 4: InstanceNorm2d, 5: InstanceNorm3d}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

many = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
kinds = st.sampled_from(sorted(MEMBERS))


@st.composite
def maps(draw, least_rank=2, dtype=torch.float64):
    """A batch (N, C, …) of small sizes, equal ones too, with some mean and deviation, in some layout."""
    sizes = [draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 4, 6]))]
    sizes += draw(st.lists(st.integers(1, 4), min_size=least_rank - 2, max_size=3))
    random = torch.Generator().manual_seed(draw(seeds))
    x = torch.randn(sizes, generator=random, dtype=torch.float64)
    x = x * draw(st.sampled_from([0.01, 1, 300])) + draw(st.sampled_from([0, 1, -50]))
    if len(sizes) in CHANNELS_LAST and draw(st.booleans()):
        x = x.contiguous(memory_format=CHANNELS_LAST[len(sizes)])
    return x.to(dtype)


@st.composite
def sets(draw):
    """An input with its channels split, and the dimensions that one member of the family averages over."""
    x = draw(maps())
    groups = draw(st.sampled_from([g for g in range(1, 7) if x.shape[1] % g == 0]))
    x = x.view(len(x), groups, -1, *x.shape[2:])
    dims = MEMBERS[draw(kinds)].dims(legend(x.dim() - 1, grouped=True))
    assume(dims and math.prod(x.shape[dim] for dim in dims) > 1)
    return x, dims


def statistics(x, dims):
    """Mean and biased variance, and the deviations."""
    count = math.prod(x.shape[dim] for dim in dims)
    mean = x.sum(dims, keepdim=True) / count
    return mean, (x - mean).square().sum(dims, keepdim=True) / count, x - mean


def like(x, seed):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def close(found, expected, tolerance=1e-9):
    found, expected = found.detach(), expected.detach()
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@many
@given(sets(), st.sampled_from([1e-5, 1e-3, 1.0]))
def test_identity_is_recovered_by_the_deviation_as_gamma_and_the_mean_as_beta(case, eps):
    x, dims = case
    mean, variance, _ = statistics(x, dims)
    assert close(normalise(x, (variance + eps).sqrt(), mean, dims, eps).output, x)


@many
@given(maps(), st.sampled_from([1e-5, 1.0]))
def test_a_layer_can_learn_the_identity(x, eps):
    """The paper's remark in the layer's own terms: γ = √(σ² + ε), β = μ."""
    assume(x.numel() > x.shape[1])
    layer = BATCH[x.dim()](x.shape[1], eps=eps).double()
    mean, variance, _ = statistics(x, (0, *range(2, x.dim())))
    with torch.no_grad():
        layer.weight.copy_((variance + eps).sqrt().flatten())
        layer.bias.copy_(mean.flatten())
    assert close(layer(x), x)


@many
@given(sets(), st.floats(0.01, 100), st.booleans(), st.floats(-100, 100))
def test_scale_and_shift_do_not_matter_without_epsilon(case, factor, flipped, shift):
    """BN(a·W u) = BN(W u), section 3.3 of the paper; a negative factor flips the sign."""
    x, dims = case
    factor = -factor if flipped else factor
    before = normalise(x, None, None, dims, 0.0).output
    after = normalise(factor * x + shift, None, None, dims, 0.0).output
    _, variance, _ = statistics(x, dims)
    assume(bool((variance > 1e-6 * (1 + x.abs().max()) ** 2).all()))  # else rounding of the shift decides
    assert close(after, math.copysign(1, factor) * before, 1e-6)


@many
@given(sets(), seeds, st.sampled_from([1e-5, 1e-2, 1.0]), st.booleans())
def test_sums_of_the_input_gradient(case, seed, eps, affine):
    """Over every set Σ dx = 0, and Σ dx·x̂ = r S2 (1 − Σx̂²/m) = r S2 · ε r² with S2 = Σ γ dy x̂."""
    x, dims = case
    x = x.requires_grad_()
    dy = like(x, seed)
    gamma = torch.randn(1, *x.shape[1:3], *[1] * (x.dim() - 3), dtype=x.dtype) if affine else None
    bias = None if gamma is None else torch.zeros_like(gamma)
    (dx,) = torch.autograd.grad(normalise(x, gamma, bias, dims, eps).output, x, dy)
    with torch.no_grad():
        _, variance, deviation = statistics(x, dims)
        r = (variance + eps).rsqrt()
        u = dy if gamma is None else gamma * dy
        s2 = (u * deviation * r).sum(dims, keepdim=True)
        scale = float(dx.abs().max().clamp_min(float((r * u).abs().max())))
        assert float(dx.sum(dims).abs().max()) < 1e-10 * scale * x.numel()
        found = (dx * deviation * r).sum(dims, keepdim=True)
        assert float((found - r * s2 * eps * r.square()).abs().max()) < 1e-9 * scale * x.numel()


@many
@given(maps(dtype=torch.float32), seeds)
def test_the_bias_before_batch_norm_gets_no_gradient_in_single_precision(x, seed):
    assume(x.numel() > x.shape[1] and len(x) > 1)
    x = (x - x.mean() + 3).detach().requires_grad_()
    dims = (0, *range(2, x.dim()))
    dy = like(x, seed)
    (dx,) = torch.autograd.grad(BATCH[x.dim()](x.shape[1])(x), x, dy)
    _, variance, _ = statistics(x.detach().double(), dims)
    scale_C = ((variance + 1e-5).rsqrt() * dy.abs()).sum(dims)  # dx itself all but vanishes for two values
    assert bool((dx.sum(dims).abs() <= 1e-5 * scale_C).all())


numbers = st.floats(-1e6, 1e6, width=32)
families = st.lists(st.lists(numbers, max_size=5), min_size=1, max_size=5)


def summed_up(values):
    """Count, mean and squares of numbers, by exact sums."""
    if not values:
        return Summary(*(torch.tensor(number, dtype=torch.float64) for number in (0, 0, 0)))
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Summary(*(torch.tensor(number, dtype=torch.float64) for number in (len(values), mean, squares)))


def assert_same_summary(one, other, values):
    largest = max((abs(value) for value in values), default=0)
    assert one.count == other.count
    if values:
        assert float(one.mean) == pytest.approx(float(other.mean), rel=1e-12, abs=1e-12 * largest)
        assert float(one.squares) == pytest.approx(float(other.squares), rel=1e-9, abs=1e-12 * largest**2)
    assert one.squares >= 0


@many
@given(families)
def test_merging_sets_gives_the_summary_of_their_union(parts):
    values = [value for part in parts for value in part]
    assert_same_summary(merged([summed_up(part) for part in parts]), summed_up(values), values)


@many
@given(st.lists(numbers, max_size=5), st.lists(numbers, max_size=5), st.lists(numbers, max_size=5))
def test_merging_is_associative_and_commutative(a, b, c):
    one, two, three = map(summed_up, (a, b, c))
    left, right = merged([merged([one, two]), three]), merged([one, merged([two, three])])
    assert_same_summary(left, right, a + b + c)
    assert_same_summary(merged([one, two]), merged([two, one]), a + b)
    assert_same_summary(merged([three, one, two]), left, a + b + c)


@many
@given(st.lists(numbers, min_size=1, max_size=5), st.integers(0, 3))
def test_empty_sets_are_neutral_whatever_their_mean(values, where):
    empty = Summary(*(torch.tensor(number, dtype=torch.float64) for number in (0, math.nan, 0)))
    parts = [summed_up(values)] * (where > 0) + [empty] * 2 + [summed_up(values)] * (where == 0)
    assert_same_summary(merged(parts), summed_up(values), values)


@many
@given(maps(), st.integers(1, 3))
def test_a_tensor_is_the_union_of_its_samples(x, cut):
    dims = (0, *range(2, x.dim()))
    whole = summary(x, dims)
    parts = merged([summary(part, dims) for part in x.split(cut)])
    assert torch.equal(whole.count.expand_as(whole.mean), parts.count.expand_as(parts.mean))
    assert close(parts.mean, whole.mean, 1e-12)
    assert close(parts.squares, whole.squares, 1e-9)


@many
@given(maps(), seeds)
def test_a_sample_is_independent_of_its_companions_at_test_time(x, seed):
    layer = BATCH[x.dim()](x.shape[1]).double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.running_mean.normal_(generator=random)
        layer.running_var.uniform_(0.1, 3, generator=random)
    strangers = torch.cat([x[:1], 1e3 * like(x, seed), torch.full_like(x, math.inf)])
    assert torch.allclose(layer(strangers)[:1], layer(x[:1]), rtol=1e-13, atol=0)


@many
@given(maps(least_rank=3), seeds, st.booleans())
def test_layer_instance_and_group_norm_see_one_sample_in_training_too(x, seed, nans):
    assume(math.prod(x.shape[2:]) > 1)
    strangers = torch.cat([x[:1], torch.full_like(x, math.nan) if nans else like(x, seed)])
    for layer in (
        GroupNorm(x.shape[1], x.shape[1]),
        GroupNorm(1, x.shape[1]),
        INSTANCE[x.dim()](x.shape[1]),
        LayerNorm(tuple(x.shape[1:])),
    ):
        assert close(layer.double().train()(strangers)[:1], layer(x[:1]), 1e-12)


@many
@given(maps(), seeds)
def test_the_order_of_samples_does_not_matter(x, seed):
    """Outputs follow the samples; γ's and β's gradients and the running averages don't know the order."""
    assume(x.numel() > x.shape[1])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    dy = like(x, seed)
    results = []
    for images, gradient in ((x, dy), (x[order], dy[order])):
        layer = BATCH[x.dim()](x.shape[1]).double()
        y = layer(images)
        results.append((y, *torch.autograd.grad(y, layer.parameters(), gradient), *layer.buffers()))
    (before, *rest), (after, *same) = results
    assert close(after, before[order])
    assert all(close(b.double(), a.double()) for a, b in zip(rest, same))


@many
@given(maps(), seeds)
def test_the_order_of_channels_does_not_matter_to_batch_norm(x, seed):
    assume(x.numel() > x.shape[1])
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    layer = BATCH[x.dim()](x.shape[1]).double()
    assert close(layer(x[:, order]), layer(x)[:, order])


@many
@given(maps(least_rank=3), st.sampled_from([1e-5, 0.1]))
def test_the_ends_of_group_norm_are_layer_and_instance_norm(x, eps):
    assume(math.prod(x.shape[2:]) > 1)
    channels = x.shape[1]
    layer = LayerNorm(tuple(x.shape[1:]), eps=eps, elementwise_affine=False)
    assert close(GroupNorm(1, channels, eps=eps).double()(x), layer(x))
    instance = INSTANCE[x.dim()](channels, eps=eps)
    assert close(GroupNorm(channels, channels, eps=eps).double()(x), instance(x))


@many
@given(maps(least_rank=3), st.sampled_from([1e-5, 0.1]))
def test_batch_norm_of_one_sample_is_instance_norm(x, eps):
    assume(math.prod(x.shape[2:]) > 1)
    batch = BATCH[x.dim()](x.shape[1], eps=eps).double()
    assert close(batch(x[:1]), INSTANCE[x.dim()](x.shape[1], eps=eps)(x[:1]))

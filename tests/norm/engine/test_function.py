import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.norm.engine.function import normalise
from norm.four_steps import double, four_steps, relative

# Input shape, shape of the affine parameters, dimensions of the statistics: every member of the family,
# with sizes of 1, sizes that are equal, and no affine parameters.
SETS = {
    "batch": ((4, 3, 5, 2), (1, 3, 1, 1), (0, 2, 3)),
    "batch of features": ((7, 3), (1, 3), (0,)),
    "batch, one sample": ((1, 3, 4, 5), (1, 3, 1, 1), (0, 2, 3)),
    "batch, C == L": ((3, 3, 3), (1, 3, 1), (0, 2)),
    "batch, one pixel": ((6, 3, 1, 1), (1, 3, 1, 1), (0, 2, 3)),
    "batch, not affine": ((4, 3, 5), None, (0, 2)),
    "layer over maps": ((2, 3, 4, 2), (1, 3, 4, 2), (1, 2, 3)),
    "layer over features": ((2, 4, 5), (1, 1, 5), (2,)),
    "layer, not affine": ((2, 4, 5), None, (1, 2)),
    "instance": ((2, 3, 4, 5), (1, 3, 1, 1), (2, 3)),
    "group": ((2, 3, 2, 4, 3), (1, 3, 2, 1, 1), (2, 3, 4)),
    "group without space": ((2, 2, 3), (1, 2, 3), (2,)),
}
BIAS_ONLY = ("batch", "layer over features")


def case(name, dtype=torch.float64, scale=1.0, offset=0.0):
    shape, affine, dims = SETS[name]
    x = (torch.randn(shape, dtype=torch.float64) * scale + offset).to(dtype).requires_grad_()
    weight = bias = None
    if affine:
        weight, bias = (torch.randn(affine, dtype=torch.float64).to(dtype).requires_grad_() for _ in "wb")
    return x, weight, bias, dims


def gradients(y, inputs, dy):
    return torch.autograd.grad(y, [t for t in inputs if t is not None], dy)


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize("name", SETS)
def test_output_and_gradients_equal_autograd_of_the_four_steps(name):
    x, weight, bias, dims = case(name)
    found = normalise(x, weight, bias, dims, 1e-5)
    x_, weight_, bias_ = double(x, weight, bias)
    y, mean, variance = four_steps(x_, weight_, bias_, dims, 1e-5)
    for ours, oracle in ((found.output, y), (found.mean, mean), (found.variance, variance)):
        assert torch.allclose(ours, oracle, atol=1e-13)
    dy = torch.randn_like(y)
    pairs = zip(gradients(found.output, (x, weight, bias), dy), gradients(y, (x_, weight_, bias_), dy))
    for ours, oracle in pairs:
        assert torch.allclose(ours, oracle, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SETS)
def test_gradcheck_and_gradgradcheck(name):
    x, weight, bias, dims = case(name)
    inputs = [t for t in (x, weight, bias) if t is not None]

    def output(x, weight=None, bias=None):
        return normalise(x, weight, bias, dims, 1e-3).output

    batched = name in ("batch", "group", "layer over features")
    assert torch.autograd.gradcheck(output, inputs, check_batched_grad=batched)
    if x.numel() < 60:
        assert torch.autograd.gradgradcheck(output, inputs)


@pytest.mark.parametrize("name", BIAS_ONLY)
def test_bias_without_weight(name):
    x, _, bias, dims = case(name)
    assert torch.autograd.gradcheck(lambda x, b: normalise(x, None, b, dims, 1e-3).output, (x, bias))


@pytest.mark.parametrize("name", BIAS_ONLY)
def test_weight_without_bias(name):
    x, weight, _, dims = case(name)
    assert torch.autograd.gradcheck(lambda x, w: normalise(x, w, None, dims, 1e-3).output, (x, weight))


@pytest.mark.parametrize("name", ["batch", "layer over features", "group"])
def test_third_derivative_equals_that_of_the_four_steps(name):
    x, weight, bias, dims = case(name)
    powers = torch.randn(x.shape, dtype=torch.float64)

    def third(output):
        for _ in range(3):
            (derivative,) = torch.autograd.grad((output * powers).sum(), x, create_graph=True)
            output = derivative.square() + derivative
        return derivative

    ours = third(normalise(x, weight, bias, dims, 1e-2).output)
    oracle = third(four_steps(x, weight, bias, dims, 1e-2)[0])
    assert relative(ours, oracle) < 1e-8


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_gradients_that_are_asked_for(wanted):
    x, weight, bias, dims = case("batch")
    inputs = [t.detach().requires_grad_(want) for t, want in zip((x, weight, bias), wanted)]
    normalise(*inputs, dims, 1e-5).output.square().sum().backward()
    assert [t.grad is not None for t in inputs] == list(wanted)
    leaves = double(x, weight, bias)
    four_steps(*leaves, dims, 1e-5)[0].square().sum().backward()
    for ours, oracle in zip(inputs, leaves):
        assert ours.grad is None or torch.allclose(ours.grad, oracle.grad, atol=1e-11)


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)]
)
def test_precision_of_forward_and_backward(name, dtype, tolerance):
    x, weight, bias, dims = case(name, dtype)
    found = normalise(x, weight, bias, dims, 1e-3).output
    leaves = double(x, weight, bias)
    y = four_steps(*leaves, dims, 1e-3)[0]
    dy = torch.randn_like(y).to(dtype)
    assert found.dtype == dtype
    assert relative(found, y) < tolerance
    ours = gradients(found, (x, weight, bias), dy)
    oracle = gradients(y, leaves, dy.double())
    assert all(grad.dtype == dtype for grad in ours)
    # dx is a small difference of its terms, so that its error is measured against the size of those.
    assert float((ours[0].double() - oracle[0]).abs().max()) < 10 * tolerance * float(dy.abs().max())
    assert all(relative(a, b) < 2 * tolerance for a, b in zip(ours[1:], oracle[1:]))


LARGE = {
    "batch": ((16, 3, 32, 32), (1, 3, 1, 1), (0, 2, 3)),
    "layer": ((4, 3, 32, 32), (1, 3, 32, 32), (1, 2, 3)),
    "group": ((4, 2, 3, 32, 32), (1, 2, 3, 1, 1), (2, 3, 4)),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("last", [True, False])
def test_large_means_leave_output_and_gradients_accurate(name, last):
    shape, affine, dims = LARGE[name]
    x = torch.randn(shape) + 1e4
    x = (x.movedim(-1, 1).contiguous().movedim(1, -1) if last else x).requires_grad_()
    weight, bias = torch.rand(affine, requires_grad=True), torch.rand(affine, requires_grad=True)
    found = normalise(x, weight, bias, dims, 1e-5).output
    leaves = double(x, weight, bias)
    y = four_steps(*leaves, dims, 1e-5)[0]
    # A gradient that is not orthogonal to the input shows errors in the centring.
    dy = (y.detach() + 0.3 * torch.randn_like(y)).float()
    assert relative(found, y) < 3e-6
    for ours, oracle in zip(gradients(found, (x, weight, bias), dy), gradients(y, leaves, dy.double())):
        assert relative(ours, oracle) < 1e-5


@pytest.mark.usefixtures("any_blocks")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["batch", "instance", "layer over maps"])
def test_output_and_gradient_keep_the_layout_of_the_input(name, layout):
    x, weight, bias, dims = case(name, torch.float32)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    y = normalise(x, weight, bias, dims, 1e-5).output
    (dx,) = torch.autograd.grad(y, x, torch.randn(x.shape))  # dy in the other layout
    assert y.is_contiguous(memory_format=layout)
    assert dx.is_contiguous(memory_format=layout)


@pytest.mark.usefixtures("any_blocks")
def test_views_and_expanded_gradients():
    base = torch.randn(4, 6, 5, 8, dtype=torch.float64)
    x = base[:, ::2, :, 1:7].requires_grad_()
    y = normalise(x, None, None, (0, 2, 3), 1e-5).output
    (dx,) = torch.autograd.grad(y.sum(), x)  # dy is one number, expanded
    assert dx.abs().max() < 1e-12
    assert torch.allclose(y, four_steps(x, None, None, (0, 2, 3), 1e-5)[0], atol=1e-12)


def test_the_input_is_not_written_to():
    x = torch.randn(4, 3, 5, requires_grad=True)
    before = x.detach().clone()
    normalise(x, None, None, (0, 2), 1e-5).output.square().sum().backward()
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("shape", [(2, 3, 0, 4), (0, 3, 5, 4), (2, 3, 5, 0)])
@pytest.mark.parametrize("dims", [(0, 2, 3), (2, 3), (1, 2, 3)])
def test_sets_without_values_have_gradients_of_zero(shape, dims):
    x = torch.empty(shape, requires_grad=True)
    weight, bias = (torch.ones(1, 3, 1, 1, requires_grad=True) for _ in range(2))
    found = normalise(x, weight, bias, dims, 1e-5)
    assert found.variance.eq(0).all()
    found.output.sum().backward()
    assert x.grad.shape == shape
    assert weight.grad.flatten().tolist() == bias.grad.flatten().tolist() == [0, 0, 0]


def test_only_the_input_and_per_set_numbers_wait_for_backward():
    saved = []
    x, weight, bias, dims = case("batch", torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        normalise(x, weight, bias, dims, 1e-5)
    large = [t for t in saved if t.numel() == x.numel()]
    assert len(large) == 1
    assert large[0].data_ptr() == x.data_ptr()
    assert all(t.numel() in (1, 3) for t in saved if t.numel() != x.numel())


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    name=st.sampled_from(["batch", "layer", "instance"]),
    seed=st.integers(0, 2**31),
)
def test_input_gradients_are_orthogonal_to_ones_and_to_the_normalised_input(sizes, name, seed):
    """Σdx = 0 exactly, Σdx x̂ = r Σ(u x̂) ε r²: the step can't move the mean, and hardly the scale."""
    dims = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}[name]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sizes, generator=generator, dtype=torch.float64, requires_grad=True)
    u = torch.randn(sizes, generator=generator, dtype=torch.float64)
    eps = 1e-3
    out = normalise(x, None, None, dims, eps)
    (dx,) = torch.autograd.grad(out.output, x, u)
    scale = (out.variance + eps).rsqrt()
    xhat = out.output.detach()
    assert (dx.sum(dims).abs() <= 1e-12 * dx.abs().sum(dims) + 1e-12).all()
    expected = scale * (u * xhat).sum(dims, keepdim=True) * eps * scale.square()
    assert torch.allclose((dx * xhat).sum(dims, keepdim=True), expected, rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 2**31))
def test_scale_and_shift_invariance(scale, shift, seed):
    x = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = normalise(x, None, None, (0, 2), 0.0).output
    moved = normalise(scale * x + shift, None, None, (0, 2), 0.0).output
    assert torch.allclose(moved, y, atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(
    scale=st.floats(1e-2, 1e2), shift=st.floats(-1e2, 1e2), eps=st.floats(0, 1), seed=st.integers(0, 2**31)
)
def test_gamma_sqrt_v_plus_eps_and_beta_mu_recover_the_identity(scale, shift, eps, seed):
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = scale * x + shift
    mean, variance = x.mean((0, 2), keepdim=True), x.var((0, 2), correction=0, keepdim=True)
    y = normalise(x, (variance + eps).sqrt(), mean, (0, 2), eps).output
    assert torch.allclose(y, x, rtol=1e-10, atol=1e-10)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.nodes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        node = torch._C._current_autograd_node()
        self.nodes.append((func, None if node is None else node.name()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SETS)
def test_runs_forward_and_backward_on_simulated_tensors_under_a_recorder(name):
    with FakeTensorMode():
        x, weight, bias, dims = case(name, torch.float32)
        with Recorder() as recorder:
            y = normalise(x, weight, bias, dims, 1e-5).output
            (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.shape == dx.shape == x.shape
    assert dx.dtype == torch.float32
    assert [str(func) for func, _ in recorder.nodes if "convscope" in str(func)] == [
        "convscope.moments.default",
        "convscope.normalise.default",
        "convscope.normalise_sums.default",
        "convscope.normalise_backward.default",
    ]
    assert "Normalise" in dict(recorder.nodes)[torch.ops.convscope.normalise_backward.default]


def test_simulated_channels_last_keeps_its_strides():
    with FakeTensorMode():
        x = torch.randn(4, 3, 5, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
        y = normalise(x, None, None, (0, 2, 3), 1e-5).output
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.stride() == dx.stride() == x.stride()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # addcmul_ has no batching rule
def test_gradients_of_every_sample_by_vmap():
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    weight = torch.randn(3, 5, dtype=torch.float64)

    def loss(weight, sample, function):
        return function(sample[None], weight[None], None, (1, 2), 1e-5)[0].pow(3).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, None))
    assert torch.allclose(each(weight, x, normalise), each(weight, x, four_steps), atol=1e-10)

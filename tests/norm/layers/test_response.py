import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import LocalResponseNorm
from norm.four_steps import relative


def loops(x, size, alpha, beta, k):
    """Krizhevsky et al. 2012, section 3.3, value by value, for maps (N, C, H, W) in float64."""
    y = torch.empty_like(x)
    channels = x.shape[1]
    for n in range(x.shape[0]):
        for i in range(channels):
            for h in range(x.shape[2]):
                for w in range(x.shape[3]):
                    window = range(max(0, i - size // 2), min(channels - 1, i + (size - 1) // 2) + 1)
                    squares = sum(float(x[n, j, h, w]) ** 2 for j in window)
                    y[n, i, h, w] = float(x[n, i, h, w]) / (k + alpha * squares) ** beta
    return y


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_equals_explicit_loops(size):
    x = torch.randn(2, 7, 2, 3, dtype=torch.float64) * 5
    found = LocalResponseNorm(size, alpha=0.1, beta=0.75, k=2.0)(x)
    assert torch.allclose(found, loops(x, size, 0.1, 0.75, 2.0), atol=1e-13)


def test_defaults_are_the_published_constants():
    x = torch.randn(1, 8, 2, 2, dtype=torch.float64) * 100
    assert torch.allclose(LocalResponseNorm()(x), loops(x, 5, 1e-4, 0.75, 2.0), atol=1e-11)


@pytest.mark.parametrize("shape", [(2, 7, 4), (2, 7, 4, 3), (2, 7, 2, 3, 2)])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_equals_torch_in_its_convention_and_gradients(shape, size):
    theirs = nn.LocalResponseNorm(size, alpha=0.3, beta=0.6, k=1.5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    averaged = LocalResponseNorm(size, alpha=0.3, beta=0.6, k=1.5, average=True)
    summed = LocalResponseNorm(size, alpha=0.3 / size, beta=0.6, k=1.5)
    expected = theirs(x)
    for ours in (averaged, summed):
        found = ours(x)
        assert torch.allclose(found, expected, atol=1e-13)
        pair = [torch.autograd.grad(y, x, dy, retain_graph=True)[0] for y in (found, expected)]
        assert torch.allclose(*pair, atol=1e-13)


def test_gradcheck_and_gradgradcheck():
    x = torch.randn(2, 5, 2, 1, dtype=torch.float64, requires_grad=True)
    layer = LocalResponseNorm(3, alpha=0.5)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_does_not_overflow(dtype, tolerance):
    x = (torch.randn(2, 8, 3, 3) * 500).to(dtype)
    found = LocalResponseNorm()(x)
    assert found.dtype == dtype
    assert relative(found, loops(x.double(), 5, 1e-4, 0.75, 2.0)) < tolerance


def test_keeps_the_layout():
    x = torch.randn(2, 8, 3, 4).contiguous(memory_format=torch.channels_last)
    y = LocalResponseNorm()(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert relative(y, loops(x.double(), 5, 1e-4, 0.75, 2.0)) < 1e-6


def test_more_neighbours_than_channels():
    x = torch.randn(1, 2, 1, 1, dtype=torch.float64)
    expected = x / (2 + 0.1 * x.square().sum(1, keepdim=True)) ** 0.75
    assert torch.allclose(LocalResponseNorm(9, alpha=0.1)(x), expected, atol=1e-14)


def test_repr_names_the_convention():
    assert repr(LocalResponseNorm()) == "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2.0)"
    assert "average=True" in repr(LocalResponseNorm(average=True))


def test_bad_input_is_refused():
    with pytest.raises(ConvscopeError, match="size 0"):
        LocalResponseNorm(0)
    with pytest.raises(ConvscopeError, match="int64"):
        LocalResponseNorm()(torch.ones(1, 2, 3, dtype=torch.int64))
    with pytest.raises(ConvscopeError, match=r"\(3,\)"):
        LocalResponseNorm()(torch.ones(3))

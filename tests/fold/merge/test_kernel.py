"""Kernels in kernels: compared with PyTorch's convolution of each, and with explicit loops."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from convscope.fold.merge.kernel import Geometry, embedded, misfit, pointwise


def geometry(kernel, stride=1, padding=0, dilation=1, groups=1, channels=(4, 4)):
    pair = [size if isinstance(size, tuple) else (size, size) for size in (kernel, stride, padding, dilation)]
    return Geometry(*channels, *pair, groups)


def run(x, weight, shape):
    return F.conv2d(x, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)


def lies_in(term, host):
    """By explicit loops: whether each tap and each channel that one reads is read by the other."""
    for axis, (k, size) in enumerate(zip(term.kernel_size, host.kernel_size)):
        reach = {m * host.dilation[axis] - host.padding[axis] for m in range(size)}
        if not {j * term.dilation[axis] - term.padding[axis] for j in range(k)} <= reach:
            return False

    def read(shape, out):
        block = out // (shape.out_channels // shape.groups)
        width = shape.in_channels // shape.groups
        return set(range(block * width, block * width + width))

    return term.stride == host.stride and all(
        read(term, out) <= read(host, out) for out in range(host.out_channels)
    )


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
shapes = st.builds(
    geometry,
    kernel=sizes,
    stride=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([(4, 8), (8, 4), (4, 4)]),
)


@given(term=shapes, host=shapes)
def test_a_kernel_fits_where_every_tap_and_channel_is_there_and_computes_the_same(term, host):
    if (term.in_channels, term.out_channels) != (host.in_channels, host.out_channels):
        return
    assert (misfit(term, host) == "") == lies_in(term, host)
    if misfit(term, host):
        return
    weight = torch.randn(term.weight_shape, dtype=torch.float64)
    x = torch.randn(2, term.in_channels, 13, 11, dtype=torch.float64)
    before, after = run(x, weight, term), run(x, embedded(weight, term, host), host)
    if before.shape == after.shape:
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 2, 2), (1, 0, 1)])
def test_the_value_itself_lies_in_every_convolution_that_keeps_its_size(kernel, padding, dilation, groups):
    host = geometry(kernel, padding=padding, dilation=dilation, groups=groups)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    ones = torch.ones(4, 1, 1, 1, dtype=torch.float64)
    assert torch.equal(run(x, embedded(ones, pointwise(4, 2), host), host), x)


def test_axes_of_unequal_sizes_are_told_apart():
    host = geometry((3, 5), padding=(1, 2))
    assert misfit(geometry((1, 5), padding=(0, 2)), host) == ""
    assert misfit(geometry((5, 1), padding=(2, 0)), host) == "a 5×1 kernel reaches beyond a 3×5 kernel"


@pytest.mark.parametrize(
    ("term", "host", "why"),
    [
        (geometry(1, stride=2), geometry(3, padding=1), "stride"),
        (geometry(1), geometry(3, padding=1, groups=4), "mixes channels"),
        (geometry(1, groups=2), geometry(3, padding=1, groups=4), "mixes channels"),
        (geometry(3, padding=1), geometry(3, padding=2, dilation=2), "reaches beyond"),
        (geometry(1, padding=1), geometry(3, padding=1), ""),
        (geometry(2, padding=0), geometry(3, padding=0), ""),
        (geometry(1, padding=2), geometry(3, padding=1), "reaches beyond"),
        (geometry(3, padding=2, dilation=2), geometry(5, padding=2), ""),
    ],
)
def test_why_a_kernel_does_not_fit(term, host, why):
    reason = misfit(term, host)
    assert why in reason
    assert bool(reason) == bool(why)


def test_grouped_kernels_land_on_their_channels():
    term, host = geometry(1, groups=4, channels=(8, 8)), geometry(1, groups=2, channels=(8, 8))
    weight = torch.arange(1.0, 17.0).reshape(8, 2, 1, 1)
    made = embedded(weight, term, host)
    for out, column in itertools.product(range(8), range(4)):
        channel = out // 4 * 4 + column  # of the input, in the host's group
        inside = channel // 2 == out // 2  # in the term's group
        expected = weight[out, channel % 2].item() if inside else 0.0
        assert made[out, column].item() == expected

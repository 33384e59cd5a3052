"""Forms that are stated without a simulation are those of PyTorch's simulation."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch._subclasses.fake_tensor import FakeTensorMode

from convscope.tape.operators import operator
from convscope.tape.stated_forms import _RULES, stated

aten = torch.ops.aten
UNARY = [
    name for name in _RULES if name.split(".")[1] in ("relu", "silu", "gelu", "sigmoid", "tanh", "hardswish")
]
BINARY = [name for name in _RULES if name not in UNARY and "batch_norm" not in name]
EXTRA = {"threshold_backward": (0,), "hardtanh_backward": (-1, 1)}
MODE = FakeTensorMode()
shapes = st.lists(st.integers(0, 4), min_size=0, max_size=5).map(tuple)
# At least two values per channel: PyTorch's simulation divides by one less.
maps = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(lambda sizes: (2 * sizes[0], *sizes[1:]))
layouts = st.sampled_from(["contiguous", "channels_last", "transposed", "strided", "expanded"])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])


def laid(shape, layout, dtype):
    if layout == "channels_last" and len(shape) in (4, 5):
        order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        return torch.empty(shape, dtype=dtype).to(memory_format=order)
    if layout == "transposed" and len(shape) > 1:
        return torch.empty((*shape[:-2], shape[-1], shape[-2]), dtype=dtype).transpose(-1, -2)
    if layout == "strided" and shape:
        return torch.empty((*shape[:-1], 2 * shape[-1]), dtype=dtype)[..., ::2]
    if layout == "expanded" and shape:
        return torch.empty((1, *shape[1:]), dtype=dtype).expand(shape)
    return torch.empty(shape, dtype=dtype)


def check(name, args, real=False):
    """Whether forms are stated; if so they are those of a simulation, or of the real operator."""
    packet = getattr(aten, name.split(".")[1])
    func = getattr(packet, name.split(".")[2])
    with MODE:
        fakes = [MODE.from_tensor(arg) if isinstance(arg, torch.Tensor) else arg for arg in args]
        known = operator(func)
        arguments = {n: fakes[i] if i < len(fakes) else d for i, (n, d) in enumerate(known.arguments)}
        found = stated(known.overload, arguments, [arg for arg in fakes if isinstance(arg, torch.Tensor)])
        if found is None:
            return False
        result = None if real else func(*fakes)
    if real:
        result = func(*args)
    for form, one in zip(found, result, strict=True) if isinstance(found, tuple) else [(found, result)]:
        told = None if one is None else (tuple(one.shape), one.stride(), one.dtype)
        assert (None if form is None else (form.shape, form.stride, form.dtype)) == told
    return True


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(UNARY + BINARY), shape=shapes, layout=layouts, other=layouts, dtype=dtypes)
def test_elementwise_operators(name, shape, layout, other, dtype):
    args = [laid(shape, layout, dtype)]
    if name in BINARY:
        args.append(laid(shape, other, dtype))
    args += EXTRA.get(name.split(".")[1], ())
    check(name, args)


@settings(max_examples=100, deadline=None)
@given(
    shape=maps,
    layout=layouts,
    other=layouts,
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    mask=st.tuples(*[st.booleans()] * 3),
    train=st.booleans(),
)
def test_batch_norms(shape, layout, other, dtype, mask, train):
    channels = torch.empty(shape[1], dtype=dtype)
    x = laid(shape, layout, dtype)
    check("aten.native_batch_norm.default", [x, channels, channels, channels, channels, train, 0.1, 1e-5])
    given_out = laid(shape, other, dtype)
    args = [given_out, x, channels, channels, channels, channels, channels, train, 1e-5, list(mask)]
    # PyTorch's simulation returns the gradient of an input that nobody asked for; its kernel doesn't.
    check("aten.native_batch_norm_backward.default", args, real=True)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", sorted(_RULES))
def test_plain_cases_are_stated(name, layout):
    x, channels = laid((2, 3, 4, 5), layout, torch.float32), torch.empty(3)
    if name.endswith("norm.default"):
        args = [x, channels, channels, channels, channels, True, 0.1, 1e-5]
    elif name.endswith("norm_backward.default"):
        args = [x, x, channels, channels, channels, channels, channels, True, 1e-5, [True, False, True]]
    else:
        args = [x] * (1 + (name in BINARY)) + list(EXTRA.get(name.split(".")[1], ()))
    assert check(name, args)
    assert check(name, args, real=True)

"""Whether code reads an attribute: told from its functions, against what really is asked for in a run."""

import functools
import types

import pytest
import torch
import torch.nn.functional as F
from timm.layers import (
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
    conv2d_same,
)
from timm.layers import Linear as TimmLinear
from torch import nn
from torch.nn.utils import parametrizations

from convscope.fold.norms.lending import FoldedCalls, folded_class
from convscope.fold.recorded.code import reads

IMAGE = (2, 3, 6, 5)


class WithoutBias(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


class ByKeyword(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, bias=None, stride=self.stride)


class OfTheBase(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).relu()


class InAMethod(nn.Conv2d):
    def forward(self, x):
        return self.run(x)

    def run(self, x):
        return F.conv2d(x, self.weight, self.given)

    @property
    def given(self):
        return self.bias


class ByItsName(nn.Conv2d):
    def forward(self, x):
        name = "".join(("bi", "as"))
        return F.conv2d(x, self.weight, getattr(self, name))


class InAnInnerFunction(nn.Conv2d):
    def forward(self, x):
        return torch.cat([F.conv2d(each[None], self.weight, self.bias) for each in x])


class OfNoBase(WithoutBias):
    def forward(self, x):
        return super().forward(x)


def doubled(forward):
    @functools.wraps(forward)
    def wrapped(self, x):
        return 2 * forward(self, x)

    return wrapped


class Decorated(nn.Conv2d):
    forward = doubled(nn.Conv2d.forward)


class DecoratedWithout(nn.Conv2d):
    forward = doubled(WithoutBias.forward)


def outside(layer, x):
    return F.conv2d(x, layer.weight, layer.bias)


def outside_without(layer, x):
    return F.conv2d(x, layer.weight)


class Handing(nn.Conv2d):
    def forward(self, x):
        return outside(self, x)


class HandingWithout(nn.Conv2d):
    def forward(self, x):
        return outside_without(self, x)


def patched(forward):
    layer = nn.Conv2d(3, 4, 3, bias=False)
    layer.forward = types.MethodType(forward, layer)
    return layer


def part(function):
    layer = nn.Conv2d(3, 4, 3, bias=False)
    layer.forward = functools.partial(function, layer)
    return layer


LAYERS = {
    "a convolution": lambda: nn.Conv2d(3, 4, 3, bias=False),
    "a transposed one": lambda: nn.ConvTranspose2d(3, 4, 3, bias=False),
    "a linear layer": lambda: nn.Linear(5, 4, bias=False),
    "timm's": lambda: TimmLinear(5, 4, bias=False),
    "padded as TensorFlow does": lambda: Conv2dSame(3, 4, 3, bias=False),
    "standardised": lambda: StdConv2d(3, 4, 3),
    "standardised, padded": lambda: StdConv2dSame(3, 4, 3),
    "scaled": lambda: ScaledStdConv2d(3, 4, 3, bias=False),
    "scaled, padded": lambda: ScaledStdConv2dSame(3, 4, 3, bias=False),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3, bias=False)),
    "lazy": lambda: nn.LazyConv2d(4, 3, bias=False),
    **{
        each.__name__: functools.partial(each, 3, 4, 3, bias=False)
        for each in (
            WithoutBias, ByKeyword, OfTheBase, InAMethod, ByItsName, InAnInnerFunction, OfNoBase, Decorated,
            DecoratedWithout, Handing, HandingWithout, folded_class(nn.Conv2d), folded_class(WithoutBias),
        )
    },
    "patched": lambda: patched(nn.Conv2d.forward),
    "patched by one without": lambda: patched(WithoutBias.forward),
    "patched by a part": lambda: part(outside),
    "patched by a part without": lambda: part(outside_without),
}  # fmt: skip


def asked(layer):
    """Whether a layer is asked for its bias in a run."""
    found = []
    layer(torch.randn(IMAGE))  # a lazy one changes its class then

    class Watched(type(layer)):
        def __getattr__(self, name):
            found.append(name)
            return super().__getattr__(name)

    layer.__class__ = Watched
    layer(torch.randn(IMAGE))
    assert found
    return "bias" in found


@pytest.mark.parametrize("name", LAYERS)
def test_code_that_asks_for_a_bias_is_known(name):
    layer = LAYERS[name]()
    if isinstance(layer, FoldedCalls):
        layer.__dict__["_folded_loans"] = ()
    assert reads(layer, "bias") is asked(layer)


class Convolver:
    """An object that runs layers, and is no module."""

    def run(self, layer, x):
        return F.conv2d(x, layer.weight, layer.bias)

    def without(self, layer, x):
        return F.conv2d(x, layer.weight)


class CalledConvolver(Convolver):
    def __call__(self, layer, x):
        return self.run(layer, x)


class Lending(nn.Module):
    """Runs its inner layer in a method, not in ``forward``."""

    def __init__(self, layer):
        super().__init__()
        self.inner = layer

    def run(self, x):
        return F.conv2d(x, self.inner.weight, self.inner.bias)


class Calling(nn.Module):
    """Calls another module's layer as a function."""

    def __init__(self, run):
        super().__init__()
        self.layer, self._run = nn.Conv2d(3, 4, 3, bias=False), run
        self.convolver, self.called, self.lending = Convolver(), CalledConvolver(), Lending(self.layer)

    def forward(self, x):
        return self._run(self, x)


CALLS = {
    "without": (lambda s, x: F.conv2d(x, s.layer.weight), False),
    "with": (lambda s, x: F.conv2d(x, s.layer.weight, s.layer.bias), True),
    "by its method": (lambda s, x: s.layer.forward(x), True),
    "by its method, without": (lambda s, x: s.layer._conv_forward(x, s.layer.weight, None), False),
    "by the method of its class": (lambda s, x: nn.Conv2d.forward(s.layer, x), True),
    "in a list": (lambda s, x: sum(F.conv2d(x, w, s.layer.bias) for w in (s.layer.weight,)), True),
    "by an object": (lambda s, x: s.called(s.layer, x), True),
    "by an object's method": (lambda s, x: s.convolver.run(s.layer, x), True),
    "by an object's other method": (lambda s, x: s.convolver.without(s.layer, x), False),
    "by another module's method": (lambda s, x: s.lending.run(x), True),
    "by a function of another file": (lambda s, x: conv2d_same.conv2d_same(x, s.layer.weight, None), False),
    "by all of its parameters": (lambda s, x: F.conv2d(x, *s.layer.parameters()), True),
}


@pytest.mark.parametrize("name", CALLS)
def test_code_that_asks_another_module_is_known(name):
    run, expected = CALLS[name]
    net = Calling(run)
    assert reads(net, "bias", net.layer) is expected


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_code_that_is_not_pythons_may_read_everything():
    assert reads(torch.jit.script(nn.ReLU()), "bias")


def test_code_that_calls_itself_and_variables_that_are_not_there_yet():
    def build():
        def forward(x):
            return forward(x) if x is None else later(x)

        layer = nn.Conv2d(3, 4, 3, bias=False)
        layer.forward = forward
        told = reads(layer, "bias")
        later = F.relu
        return told, later

    assert build()[0] is False

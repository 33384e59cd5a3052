"""The class whose code skips batch norms: what it leaves behind, and what it does when called otherwise."""

import copy
import inspect
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from convscope.fold.skipping import FoldedCalls, SkippedCall, folded_class, skip_calls


class Net(nn.Module):
    """Twice a batch norm of x, in which nothing is neutral, so that one which runs shows."""

    def __init__(self, child=None):
        super().__init__()
        self.register_buffer("mean", torch.full((3,), 7.0))
        self.register_buffer("var", torch.full((3,), 4.0))
        self.kernel = nn.Parameter(torch.ones(3, 3))
        self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.child, self.fails, self.depth = child, False, 0

    def forward(self, x, *, factor=2):
        if self.child is not None:
            x = self.child(x)
        if self.fails:
            raise ValueError("in the middle")
        return factor * F.batch_norm(input=x, running_var=self.var, running_mean=self.mean)


class Again(Net):
    """Calls itself within its forward pass."""

    def forward(self, x, depth=2):
        y = self(x, depth - 1) if depth else x
        return F.batch_norm(y + 1, self.mean, self.var)


class Linear(Net):
    """A linear function whose result is normalised."""

    def forward(self, x):
        return F.batch_norm(F.linear(x, self.kernel), self.mean, self.var)


class ByHand(Net):
    """The same, written otherwise."""

    def forward(self, x):
        return F.batch_norm(x @ self.kernel.T, self.mean, self.var)


class Biased(Net):
    """The same, with a bias of its own."""

    def forward(self, x):
        return F.batch_norm(F.linear(x, self.kernel, torch.full((3,), 10.0)), self.mean, self.var)


def skipping(net, *calls):
    skip_calls(net, calls or [SkippedCall("mean")])
    return net


X = torch.arange(6.0).reshape(2, 3)


def test_skips_by_keyword_and_position():
    assert torch.equal(skipping(Net())(X), 2 * X)
    assert torch.equal(skipping(Net())(X, factor=3), 3 * X)
    assert torch.equal(skipping(Again())(X), X + 3)


def test_only_the_calls_by_the_tensors_given():
    child = Net()
    normalised = child(X)
    assert torch.equal(skipping(Net(child))(X), 2 * normalised), "the child normalises as before"
    outer = skipping(Net(skipping(Net(child))))
    assert torch.equal(outer(X), 4 * normalised)


def test_what_is_added():
    rest = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(skipping(Net(), SkippedCall("mean", "shift"))(X), 2 * (X + rest))
    assert torch.equal(skipping(Net(), SkippedCall("mean", "mean"))(X), 2 * (X - 7))
    image = X.reshape(1, 3, 2, 1)
    expected = 2 * (image + rest.view(3, 1, 1))
    assert torch.equal(skipping(Net(), SkippedCall("mean", "shift"))(image), expected)


def test_a_bias_is_given_once():
    net = skipping(Linear(), SkippedCall("mean", "shift", "kernel"))
    product, shift = X @ torch.ones(3, 3), torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(net(X), product + shift)
    by_hand = skipping(ByHand(), SkippedCall("mean", "shift", "kernel"))
    assert torch.equal(by_hand(X), product + shift), "what wasn't given to the layer is added"
    assert torch.equal(skipping(Biased(), SkippedCall("mean", "shift", "kernel"))(X), product + 10 + shift)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_nothing_behind(fails):
    net = skipping(Net())
    held = set(vars(net))
    net.fails = fails
    if fails:
        with pytest.raises(ValueError, match="in the middle"):
            net(X)
    else:
        net(X)
    assert _get_current_function_mode_stack() == []
    assert set(vars(net)) == held
    net.fails = False
    assert torch.equal(net(X), 2 * X)


def test_tensors_are_looked_up_anew():
    net = skipping(Net()).double()
    net.mean = net.mean.clone()
    assert torch.equal(net(X.double()), 2 * X.double())
    given = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert torch.equal(torch.func.functional_call(net, given, (X.double(),)), 2 * X.double())


def test_class():
    assert folded_class(Net) is folded_class(Net)
    net = skipping(Net())
    assert isinstance(net, Net)
    assert isinstance(net, FoldedCalls)
    assert type(net).__name__ == "FoldedNet"
    assert type(net).__module__ == Net.__module__
    skip_calls(net, [SkippedCall("mean"), SkippedCall("mean", "shift")])
    assert type(net) is folded_class(Net)
    assert type(copy.deepcopy(net)) is type(copy.copy(net)) is type(net)
    assert list(inspect.signature(net.forward).parameters) == ["x", "factor"]


def test_script_compiles_the_users_code():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("var", torch.ones(3) - 1e-5)

        def forward(self, x):
            return F.batch_norm(x, self.mean, self.var)

    net = skipping(Plain())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(X), X)
    assert type(net).__name__ == "FoldedPlain"

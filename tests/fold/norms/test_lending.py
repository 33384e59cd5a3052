"""The class whose code lends biases, and the running mean that answers for its batch norm, on their own."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from convscope.fold.norms.lending import FoldedCalls, Loan, folded_class, lend
from convscope.fold.norms.neutral_mean import NeutralMean, NeutralMeanBeforeBias

X = torch.arange(6.0).reshape(2, 3)
SHIFT = torch.tensor([1.0, 2.0, 3.0])
PRODUCT = X.sum(1, keepdim=True).expand(2, 3)


class Net(nn.Module):
    """A linear function, normalised; nothing else is neutral, so that a batch norm which runs shows."""

    def __init__(self, child=None):
        super().__init__()
        self.mean = torch.zeros(3).as_subclass(NeutralMeanBeforeBias)
        self.register_buffer("var", torch.full((3,), 4.0))
        self.kernel, self.shift = nn.Parameter(torch.ones(3, 3)), nn.Parameter(SHIFT.clone())
        self.child, self.fails = child, False

    def layer(self, x):
        return F.linear(x, self.kernel)

    def forward(self, x, *, factor=2):
        y = self.layer(x if self.child is None else self.child(x))
        if self.fails:
            raise ValueError("in the middle")
        return factor * F.batch_norm(input=y, running_var=self.var, running_mean=self.mean, bias=self.shift)


class ByHand(Net):
    def layer(self, x):
        return x @ self.kernel.T


class Biased(Net):
    def layer(self, x):
        return F.linear(x, self.kernel, torch.full((3,), 10.0))


class ByPosition(Net):
    def layer(self, x):
        return F.linear(x, self.kernel, None)


class Again(Net):
    def forward(self, x, depth=2):
        y = F.batch_norm(self.layer(x), self.mean, self.var, None, self.shift)
        return self(y, depth - 1) if depth else y


def lending(net):
    lend(net, [Loan("kernel", "shift")])
    return net


@pytest.mark.parametrize(("make", "own"), [(Net, 0), (ByHand, 0), (Biased, 10), (ByPosition, 0)])
def test_the_bias_is_added_once_whoever_adds_it(make, own):
    net = lending(make())
    assert torch.equal(net(X), 2 * (PRODUCT + own + SHIFT))
    assert torch.equal(net(X, factor=3), 3 * (PRODUCT + own + SHIFT))
    assert torch.equal(net.layer(X), PRODUCT + own), "not outside of forward"


def test_within_itself_and_others():
    def once(x):
        return x.sum(1, keepdim=True).expand(2, 3) + SHIFT

    assert torch.equal(lending(Again())(X), once(once(once(X))))
    assert torch.equal(lending(Net(lending(Net())))(X), 2 * once(2 * once(X)))
    assert torch.equal(lending(Net(Net()))(X), 2 * once(2 * once(X)))


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_nothing_behind(fails):
    net = lending(Net())
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
    assert torch.equal(net(X), 2 * (PRODUCT + SHIFT))


def test_tensors_are_looked_up_anew():
    net = lending(Net()).double()
    net.kernel = nn.Parameter(torch.eye(3, dtype=torch.float64))
    assert torch.equal(net(X.double()), 2 * (X + SHIFT).double())
    given = {name: tensor.clone() + 1 for name, tensor in net.state_dict().items()}
    result = torch.func.functional_call(net, given, (X.double(),))
    assert torch.equal(result, 2 * (X + PRODUCT + SHIFT + 1).double())


def test_class():
    net = lending(Net())
    assert folded_class(Net) is folded_class(Net) is type(net)
    assert isinstance(net, Net)
    assert isinstance(net, FoldedCalls)
    assert (type(net).__name__, type(net).__module__) == ("FoldedNet", Net.__module__)
    lend(net, [Loan("kernel", "shift")])
    assert type(net) is type(copy.deepcopy(net)) is type(copy.copy(net)) is folded_class(Net)
    assert list(inspect.signature(net.forward).parameters) == ["x", "factor"]


def test_gradients_reach_the_bias():
    net = lending(Net())
    net(X).sum().backward()
    assert torch.equal(net.shift.grad, torch.full((3,), 4.0))


def test_script_compiles_the_users_code():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("var", torch.ones(3) - 1e-5)
            self.kernel, self.shift = nn.Parameter(torch.ones(3, 3)), nn.Parameter(SHIFT.clone())

        def forward(self, x):
            return F.batch_norm(F.linear(x, self.kernel), self.mean, self.var, bias=self.shift)

    net = lending(Plain())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(X), PRODUCT + SHIFT)
    assert type(net).__name__ == "FoldedPlain"


@pytest.mark.parametrize("kind", [NeutralMean, NeutralMeanBeforeBias])
@pytest.mark.parametrize("x", [X, X.reshape(1, 3, 2, 1), X.reshape(2, 3, 1)], ids=lambda x: str(x.dim()))
def test_neutral_mean_answers_for_its_batch_norm(kind, x):
    mean, var, weight = torch.zeros(3).as_subclass(kind), torch.full((3,), 4.0), torch.full((3,), 5.0)
    rest = SHIFT.reshape(-1, *(1,) * (x.dim() - 2)) if kind is NeutralMeanBeforeBias else 0
    expected = x + rest
    assert torch.equal(F.batch_norm(x, mean, var, weight, SHIFT), expected)
    assert torch.equal(F.batch_norm(x, mean, var, bias=SHIFT, training=True), expected)
    assert torch.equal(torch.batch_norm(x, weight, SHIFT, mean, var, False, 0.1, 1e-5, False), expected)
    assert torch.equal(F.instance_norm(x, mean, var, weight, SHIFT, False), expected)
    assert torch.equal(F.batch_norm(x, mean, var), x)


@pytest.mark.parametrize("kind", [NeutralMean, NeutralMeanBeforeBias])
def test_neutral_mean_is_a_tensor_of_zeros_for_the_rest(kind):
    mean = torch.zeros(3).as_subclass(kind)
    assert torch.equal(mean + SHIFT, SHIFT)
    assert type(mean + SHIFT) is torch.Tensor
    for copied in (copy.deepcopy(mean), pickle.loads(pickle.dumps(mean))):
        assert type(copied) is kind
        assert torch.equal(copied + 0, torch.zeros(3))
        assert copied.data_ptr() != mean.data_ptr()
    for cast in (mean.detach(), mean.double(), mean.to(torch.float16), mean.clone()):
        assert type(cast) is kind
    assert type(SHIFT.type_as(mean)) is type(SHIFT.to(mean)) is torch.Tensor
    pair = copy.deepcopy([mean, mean])
    assert pair[0] is pair[1]

import threading

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from convscope.norm.naming import named, path_of


class BatchNorm(nn.BatchNorm2d):
    """Fails with its name, at the call that it is told."""

    def __init__(self, num_features, fails_at=1):
        super().__init__(num_features)
        self.fails_at = fails_at

    def forward(self, x):
        self.fails_at -= 1
        if self.fails_at == 0:
            raise ValueError(named(self))
        return super().forward(x)


def network(fails_at=1):
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ModuleDict({"norm": Block(fails_at)})["norm"])


class Block(nn.Module):
    def __init__(self, fails_at=1):
        super().__init__()
        self.bn = BatchNorm(4, fails_at)

    def forward(self, x):
        return self.bn(x)


class Checkpointed(nn.Module):
    def __init__(self, block, use_reentrant):
        super().__init__()
        self.stem, self.block, self.use_reentrant = nn.Conv2d(3, 4, 1), block, use_reentrant

    def forward(self, x):
        return checkpoint(self.block, self.stem(x), use_reentrant=self.use_reentrant)


class Trainer(nn.Module):
    """A module whose training loop isn't its forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def fit(self, x):
        return self.model(x)


X = torch.randn(2, 3, 5, 4)


def in_a_thread(net):
    errors = []

    def run():
        try:
            net(X)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise errors[0]


def in_a_network_of_the_same_name(net):
    """A frame whose ``self`` is a module without the layer in it says nothing."""

    class Loss(nn.Module):
        def forward(self, x):
            return net(x)

    return Loss()(X)


RUNS = {
    "plain": (lambda net: net(X), "1.bn"),
    "without __call__": (lambda net: net.forward(X), "1.bn"),
    "inside another": (lambda net: nn.Sequential(nn.Identity(), net)(X), "1.1.bn"),
    "data parallel": (lambda net: nn.DataParallel(net)(X), "1.bn"),
    "averaged model": (lambda net: AveragedModel(net)(X), "module.1.bn"),
    "functional call": (
        lambda net: torch.func.functional_call(net, dict(net.named_parameters()), (X,)),
        "1.bn",
    ),
    "vmap": (lambda net: torch.vmap(net)(X[None]), "1.bn"),
    "hooked": (lambda net: (net.register_forward_hook(lambda *_: None), net(X)), "1.bn"),
    "a module's own loop": (lambda net: Trainer(net).fit(X), "model.1.bn"),
    "a part of it": (lambda net: net[1](X), "bn"),
    "another thread": (in_a_thread, "1.bn"),
    "under a stranger": (in_a_network_of_the_same_name, "1.bn"),
    "no gradients": (torch.inference_mode()(lambda net: net(X)), "1.bn"),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_path_in_the_outermost_network(run):
    call, path = RUNS[run]
    with pytest.raises(ValueError, match=f"^BatchNorm at '{path}'$"):
        call(network())


def test_a_layer_on_its_own():
    with pytest.raises(ValueError, match=r"^BatchNorm$"):
        BatchNorm(3)(X)
    assert path_of(nn.ReLU()) == ""
    net = network()
    assert named(net[1].bn) == "BatchNorm"  # it isn't running


@pytest.mark.parametrize("second", [False, True])
def test_a_shared_layer_has_its_first_path(second):
    layer = BatchNorm(3, fails_at=2 if second else 1)
    net = nn.Sequential(nn.Sequential(layer), layer)
    with pytest.raises(ValueError, match=r"^BatchNorm at '0\.0'$"):
        net(X)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant):
    with pytest.raises(ValueError, match=r"^BatchNorm at 'block\.bn'$"):
        Checkpointed(Block(), use_reentrant)(X.clone().requires_grad_())
    again = Checkpointed(Block(fails_at=2), use_reentrant)
    y = again(X.clone().requires_grad_()).sum()
    with pytest.raises(ValueError, match=r"^BatchNorm at 'bn'$"):  # backward runs the block alone
        y.backward()


def test_compiled():
    """The compiler may leave only the class."""
    with pytest.raises(Exception, match="BatchNorm"):
        torch.compile(network(), backend="eager")(X)
    net = torch.compile(network(), backend="eager")
    assert named(net._orig_mod[1].bn) == "BatchNorm"
    torch.compiler.set_stance("force_eager")
    try:
        with pytest.raises(ValueError, match=r"^BatchNorm at '1\.bn'$"):
            torch.compile(network(), backend="eager")(X)
    finally:
        torch.compiler.set_stance("default")

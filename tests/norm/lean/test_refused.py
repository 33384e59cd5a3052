"""What a lean network refuses, warns of, and gives back: always the network as it was."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

import convscope as cs
from convscope.core.errors import ConvscopeError
from norm.lean.measured import assert_same_bits, step


def _net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))


class _Changing(nn.Module):
    """User code that changes in place what was saved: the norm's input, or what is made again."""

    def __init__(self, what):
        super().__init__()
        self.body, self.what = _net(), what

    def forward(self, x):
        before = self.body[0](x)
        after = self.body[2](self.body[1](before))
        out = self.body[3](after)
        {"before": before, "after": after, "view": before[:1], "nothing": out}[self.what].mul_(2)
        return out


@pytest.mark.parametrize("what", ["before", "view"])
def test_a_change_in_place_of_what_is_kept_is_named(what):
    net = _Changing(what)
    cs.norm.lean(net)
    out = net(torch.randn(2, 3, 8, 8)).sum()
    with pytest.raises(
        ConvscopeError, match=r"2×4×6×6 that body\.1 saved .* changed in place since.*x = x \+ 1"
    ):
        out.backward()


def test_one_of_what_is_made_again_does_no_harm():
    """PyTorch refuses here; the recipe gives what the convolution has seen."""
    net, other = _Changing("after"), _Changing("nothing")
    other.what = "nothing"
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        copy.deepcopy(net)(x).sum().backward()
    cs.norm.lean(net)
    net(x).sum().backward()
    (other(x).sum() / 2).backward()
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_parameter_that_moves_before_backward_is_refused_as_ever():
    net = _net()
    cs.norm.lean(net)
    out = net(torch.randn(2, 3, 8, 8)).sum()
    with torch.no_grad():
        net[3].weight.add_(1)
    with pytest.raises(ConvscopeError, match="that 3 saved"):
        out.backward()


def test_a_bias_that_moves_before_backward_is_taken_as_it_was():
    plain, lean = _net(), _net()
    cs.norm.lean(lean)
    x = torch.randn(2, 3, 8, 8)
    for net in (plain, lean):
        out = net(x).sum()
        with torch.no_grad():
            net[1].bias.add_(5)
        out.backward()
    assert_same_bits([p.grad for p in lean.parameters()], [p.grad for p in plain.parameters()])


def test_nothing_to_save_is_said_once():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    handle = cs.norm.lean(net)
    with pytest.warns(cs.norm.NothingSavedWarning, match=r"lean\(Sequential\) saves nothing"):
        net(torch.ones(2, 3))
    net(torch.ones(2, 3))  # warnings are errors here
    assert handle.savings.share == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_behind(error):
    net, x = _net(), torch.randn(2, 3, 8, 8)
    expected = step(copy.deepcopy(net), x)
    handle = cs.norm.lean(net)

    def fail(*_):
        raise error

    hook = net[2].register_forward_hook(fail)
    with pytest.raises(error):
        net(x)
    hook.remove()
    assert _get_current_dispatch_mode() is None
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert handle.savings is None
    net[1].reset_running_stats()
    assert_same_bits(step(net, x), expected)


def test_undone_it_is_as_it_was():
    net = _net()
    before = dict(vars(net))
    handle = cs.norm.lean(net)
    assert vars(net) != before
    handle.undo()
    handle.undo()
    assert vars(net) == before
    with cs.norm.lean(net) as handle, pytest.raises(ZeroDivisionError):
        assert handle.savings is None
        net(torch.randn(2, 3, 8, 8))
        raise ZeroDivisionError
    assert vars(net) == before
    assert handle.savings.share < 1


def test_handles_may_be_undone_in_any_order():
    net, x = _net(), torch.randn(2, 3, 8, 8)
    first = cs.norm.lean(net)
    second = cs.norm.lean(net, residual=False)
    net(x)
    assert first.savings is None
    assert second.savings.share < 1
    first.undo()
    net(x)
    second.undo()
    assert "forward" not in vars(net)


def test_a_forward_of_the_instances_own_comes_back():
    net = _net()
    net.forward = own = lambda x: nn.Sequential.forward(net, x) * 2
    handle = cs.norm.lean(net)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x), own(x))
    assert handle.savings.share < 1
    handle.undo()
    assert net.forward is own


def test_copies_and_pickles_are_lean_too():
    net, x = _net(), torch.randn(2, 3, 8, 8)
    expected = step(copy.deepcopy(net), x)
    cs.norm.lean(net)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        twin_forward = vars(twin)["forward"]
        assert_same_bits(step(twin, x), expected)
        assert twin_forward.savings.share < 1
        assert twin[0].weight.grad is not None
    assert net[0].weight.grad is None


def test_the_signature_is_the_networks():
    class Named(nn.Module):
        def forward(self, images, scale=2.0):
            return images * scale

    net = Named()
    expected = inspect.signature(net.forward)
    cs.norm.lean(net)
    assert inspect.signature(net.forward) == expected


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_watched(mode):
    net = _net().eval()
    handle = cs.norm.lean(net)
    with mode():
        net(torch.randn(2, 3, 8, 8))
    assert handle.savings is None


def test_compiled_networks_are_declined_with_the_reason():
    with pytest.raises(ConvscopeError, match="compiled; expected eager PyTorch, since torch"):
        cs.norm.lean(torch.compile(_net(), backend="eager"))
    net = nn.Sequential(_net())
    net[0].compile(backend="eager")
    with pytest.raises(ConvscopeError, match=r"0 \(Sequential\), compiled"):
        cs.norm.lean(net)


def test_compiling_a_lean_network_is_declined_with_the_reason():
    net = _net()
    cs.norm.lean(net)
    compiled, x = torch.compile(net, backend="eager"), torch.randn(2, 3, 8, 8)
    with pytest.raises(ConvscopeError, match=r"torch\.compile of a lean Sequential; expected eager"):
        compiled(x)


def test_scripted_networks_are_declined():
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.trace(_net().eval(), torch.randn(2, 3, 8, 8))
    with pytest.raises(ConvscopeError, match="made by torch"):
        cs.norm.lean(scripted)


def test_export_takes_the_network_as_it_is():
    net = _net().eval()
    cs.norm.lean(net)
    x = torch.randn(2, 3, 8, 8)
    exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), net(x))

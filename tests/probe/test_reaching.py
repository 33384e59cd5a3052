"""Several values of one run, each with its own graph, whatever the network writes afterwards."""

import pytest
import torch
from torch import nn

from cases import ResidualNet
from convscope.core.errors import ConvscopeError
from convscope.probe import probing


class Overwriting(nn.Module):
    """Changes what it has computed in place, as residual networks do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        y = self.second(x)
        y += x
        y.mul_(2)
        return y.sum()


ADDRESSES = ("first#1:convolution.1", "second", "self#1:add_.1", "self#1:mul_.1")


def test_values_and_gradients_are_those_of_one_run_each():
    net, images = Overwriting(), torch.randn(2, 3, 7, 6)
    with probing(net) as probe:
        leaves = images.clone().requires_grad_()
        found = probe.run_through(ADDRESSES, leaves)
        for address in (*ADDRESSES, *ADDRESSES[::-1]):
            alone = images.clone().requires_grad_()
            expected = probe.run_until(address, alone)
            assert torch.equal(found[address], expected)
            seed = torch.randn_like(expected)
            (gradient,) = torch.autograd.grad(found[address], leaves, seed, retain_graph=True)
            assert torch.equal(gradient, torch.autograd.grad(expected, alone, seed)[0])


def test_the_run_ends_after_the_last():
    net, ran = ResidualNet().eval(), []
    with probing(net) as probe:
        probe.read("addmm", lambda visit, _: ran.append(visit.site.op))
        with torch.no_grad():
            found = probe.run_through(["conv2", "conv1"], torch.randn(1, 3, 17, 13))
    assert set(found) == {"conv2", "conv1"}
    assert ran == []


def test_parameters_get_no_gradients():
    masks = set()
    net = Overwriting()
    with probing(net) as probe:
        probe.read("convolution_backward", lambda visit, _: masks.add(tuple(visit.args[-1])))
        leaves = torch.randn(1, 3, 7, 6, requires_grad=True)
        maps = probe.run_through(["second"], leaves)["second"]
        torch.autograd.grad(maps.sum(), leaves)
    assert masks == {(True, False, False)}
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_is_not_passed_is_named():
    with probing(Overwriting()) as probe, pytest.raises(ConvscopeError, match=r"self#1:cat\.1"):
        probe.run_through(["first", "self#1:cat.1"], torch.randn(1, 3, 7, 6))


class Failing(nn.Module):
    """Fails in a module of its own, as on data that it can't take."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Identity()
        self.last.forward = self._fail

    def forward(self, x):
        return self.last(self.conv(x))

    @staticmethod
    def _fail(_):
        raise ValueError("the user's own words")


@pytest.mark.parametrize("addresses", [["last"], ["conv", "last"], ["last#1:relu.1"]])
def test_the_networks_own_error_is_told_where_the_target_fails(addresses):
    """It isn't taken for a run that doesn't come by the target, and the model is usable again."""
    net = Failing()
    with probing(net) as probe:
        told = []
        probe.at_module("*", lambda address, result: told.append((str(address), result)))
        for run in (
            lambda *x: probe.run_until(addresses[-1], *x),
            lambda *x: probe.run_through(addresses, *x),
        ):
            with pytest.raises(ValueError, match="the user's own words"):
                run(torch.randn(1, 3, 7, 6))
            assert probe.attribution.failed_in == "last#1"
        assert None not in [result for _, result in told]
        assert probe.run_until("conv", torch.randn(1, 3, 7, 6)).shape == (1, 4, 5, 4)


class Falling(nn.Module):
    """Has another way where the first one fails."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Failing(), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        try:
            return self.first(x)
        except ValueError:
            return self.second(x)


def test_a_network_that_gets_over_its_own_failure_is_followed():
    net, images = Falling(), torch.randn(1, 3, 7, 6)
    with probing(net) as probe:
        assert torch.equal(probe.run_until("second", images), net.second(images))
        with pytest.raises(ConvscopeError, match="first' isn't passed"):
            probe.run_until("first", images)

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.norm import GroupNorm
from convscope.norm.conversion import regrouping
from convscope.norm.conversion.convert import convert
from convscope.norm.group_fit.fit import GroupFit, fit_groups
from norm.conversion.converted_nets import Net, ReluBatchNorm, assert_same_state, state, trained

SHAPE = (6, 3, 9, 8)


def group_norm(layer, x, groups):
    """The definition in float64, element by element of the batch and group."""
    x, y = x.double(), torch.empty_like(x, dtype=torch.float64)
    for n in range(x.shape[0]):
        for group in x[n].chunk(groups):
            deviation = (group - group.mean()).square().mean().add(layer.eps).sqrt()
            group.copy_((group - group.mean()) / deviation)
        y[n] = x[n]
    axes = (1, -1) + (1,) * (x.dim() - 2)
    return y * layer.weight.double().view(axes) + layer.bias.double().view(axes)


@pytest.fixture
def net():
    return trained(Net(), *SHAPE)


def test_layers_become_group_norms_in_place(net):
    parameters = {name: (id(p), p.clone()) for name, p in net.named_parameters()}
    layers, calls = [net.bn1, net.bn2, net.bn3], []
    net.bn1.register_forward_hook(lambda *_: calls.append(1))
    net.bn2.eval()
    conversion = convert(net, "group", SHAPE)
    assert [net.bn1, net.bn2, net.bn3] == layers
    assert net.again is net.bn1
    for name, parameter in net.named_parameters():
        assert (id(parameter), True) == (parameters[name][0], torch.equal(parameter, parameters[name][1]))
    assert [entry.num_groups for entry in conversion.entries] == [4, 4, 1]  # 8 × 7 × 6, and 6 features
    assert all(isinstance(layer, GroupNorm) for layer in layers)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    assert not net.bn2.training
    assert net.bn1.training
    calls.clear()  # it was run for the comparison
    net(torch.randn(SHAPE))
    assert len(calls) == 2
    assert {name.rpartition(".")[2] for name in net.state_dict()} == {"weight", "bias"}
    assert any("train the network again" in note for note in conversion.notes)


@pytest.mark.parametrize("shape", [(5, 8, 3, 4), (5, 8)])
def test_a_converted_layer_computes_group_norm(shape):
    layer = trained(
        nn.Sequential((nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(8, eps=0.01)), *shape
    )
    convert(layer, "group", shape, num_groups=2)
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x).double(), group_norm(layer[0], x, 2), rtol=0, atol=2e-6)


def test_subclasses_keep_their_activation(net):
    convert(net, "group")
    x, layer = torch.randn(6, 8, 5, 4), net.bn2
    expected = F.leaky_relu(F.group_norm(x, 4, layer.weight, layer.bias, layer.eps), ReluBatchNorm.slope)
    torch.testing.assert_close(layer(x), expected)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other.bn2(x), expected)


def test_a_group_of_one_value_is_refused():
    """opacus#567: group norm of single values is zero whatever the input."""
    net = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(1), nn.BatchNorm2d(1))
    before = state(net)
    entries = convert(net, "group", num_groups=1).entries
    assert [entry.status for entry in entries] == ["converted", "refused", "refused"]
    assert "single value" in entries[1].reason
    assert "give inputs" in entries[1].reason
    four = trained(nn.Sequential(nn.BatchNorm1d(4)), 6, 4)
    assert convert(four, "group", (6, 4), num_groups=4).entries[0].status == "refused"
    assert nn.GroupNorm(4, 4)(torch.randn(6, 4, 1)).abs().max() < 1e-4
    assert state(net)["1"][:4] == before["1"][:4]
    on_maps = nn.Sequential(nn.BatchNorm2d(1))
    assert convert(on_maps, "group", (2, 1, 3, 3)).entries[0].status == "converted"


def test_a_number_of_groups_that_does_not_divide_is_refused(net):
    conversion = convert(net, "group", num_groups=4)
    assert [entry.status for entry in conversion.entries] == ["converted", "converted", "refused"]
    assert "4 groups don't divide 6 channels" in conversion.entries[2].reason
    assert isinstance(net.bn3, nn.BatchNorm1d)


def test_data_refits_gamma_and_beta_in_the_same_parameters(net):
    data = torch.randn(32, *SHAPE[1:])
    fits = fit_groups(copy.deepcopy(net), ["bn2", "bn3"], data)
    identities = {name: id(p) for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(SHAPE)).sum().backward()
    optimizer.step()
    net.load_state_dict(net.state_dict())
    fits = fit_groups(copy.deepcopy(net), ["bn2", "bn3"], data)
    conversion = convert(net, "group", only=["bn2", "bn3"], data=data, optimizer=optimizer)
    assert identities == {name: id(p) for name, p in net.named_parameters()}
    for entry in conversion.entries:
        layer, fit = net.get_submodule(entry.path), fits[entry.path]
        assert torch.equal(layer.weight, fit.weight.float())
        assert torch.equal(layer.bias, fit.bias.float())
        assert (entry.num_groups, entry.residual) == (fit.num_groups, fit.residual)
        assert layer.num_groups == fit.num_groups
    assert any("optimizer's state" in note for note in conversion.notes)
    net(torch.randn(SHAPE)).sum().backward()
    optimizer.step()


def bare(optimizer_groups):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
    )
    net = trained(net, *SHAPE).double()
    groups = [
        {"params": [net[0].weight, net[2].weight, net[2].bias], "weight_decay": 0.5},
        {"params": [net[0].bias]},
    ]
    return net, torch.optim.SGD(groups[:optimizer_groups], 0.1, momentum=0.9) if optimizer_groups else None


def test_new_parameters_join_the_optimizers_largest_group():
    net, optimizer = bare(2)
    conversion = convert(net, "group", data=torch.randn(16, 3, 9, 8).double(), optimizer=optimizer)
    assert conversion.new_parameters == ("1.weight", "1.bias")
    assert [id(p) for p in optimizer.param_groups[0]["params"][3:]] == [id(net[1].weight), id(net[1].bias)]
    assert len(optimizer.param_groups[1]["params"]) == 1
    assert net[1].weight.dtype == torch.float64
    assert net[1].affine
    assert any("optimizer's state" in note for note in conversion.notes)  # of the other layer's γ and β
    alone, its_optimizer = bare(1)
    notes = convert(alone, "group", data=torch.randn(16, 3, 9, 8).double(), only="1", optimizer=its_optimizer)
    assert notes.notes == ()
    before = net[1].weight.clone()
    net(torch.randn(SHAPE).double()).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net[1].weight, before)


def test_new_parameters_without_an_optimizer_are_listed():
    net, _ = bare(0)
    conversion = convert(net, "group", data=torch.randn(16, 3, 9, 8).double())
    assert conversion.new_parameters == ("1.weight", "1.bias")
    assert any("in no optimizer" in note for note in conversion.notes)
    other, _ = bare(0)
    assert convert(other, "group").new_parameters == ()
    assert other[1].weight is None


def test_an_exception_takes_everything_back(monkeypatch):
    net, optimizer = bare(2)
    before, members = state(net), [list(map(id, group["params"])) for group in optimizer.param_groups]
    make = regrouping.Regrouping.make

    def failing(self):
        make(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(regrouping.Regrouping, "make", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(net, "group", data=torch.randn(16, 3, 9, 8).double(), optimizer=optimizer)
    assert_same_state(before, state(net))
    assert members == [list(map(id, group["params"])) for group in optimizer.param_groups]


def test_what_the_fit_refuses_stays(net, monkeypatch):
    fit = GroupFit(
        "bn3", 1, torch.zeros(6), torch.zeros(6), 1e-5, 1, float("nan"), float("nan"), "no such luck"
    )
    monkeypatch.setattr(regrouping, "fit_groups", lambda *_: {"bn3": fit})
    before = state(net)["bn3"]
    entry = convert(net, "group", only="bn3", data=torch.zeros(1)).entries[0]
    assert (entry.status, entry.reason, entry.num_groups) == ("refused", "no such luck", None)
    assert state(net)["bn3"][:4] == before[:4]


def test_group_norm_goes_to_pytorchs_own(net):
    convert(net, "group")
    x = torch.randn(SHAPE)
    conversion = convert(net, "torch", x)
    assert type(net.bn1) is nn.GroupNorm
    assert all(each.max_relative < 1e-5 for each in conversion.differences)

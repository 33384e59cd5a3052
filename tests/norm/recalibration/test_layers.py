"""Which layers are recalibrated, however they are built and called, and which are left."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.norm import BatchNorm2d
from convscope.norm.freezing.freeze import freeze
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import convnet, deployed_inputs, two_pass


def test_counts_and_momentum():
    net = convnet().train()
    with torch.no_grad():
        net[12].num_batches_tracked.fill_(1000)
    recalibrate(net, list(torch.randn(12, 2, 9, 9).split(4)))
    # ln 0.01 / ln 0.99 = 458.2; the calls of a cumulative average; ln 0.01 / ln 0.9 = 43.7; more than that.
    assert [int(net[at].num_batches_tracked) for at in (1, 5, 8, 12)] == [459, 3, 44, 1000]
    assert [net[at].momentum for at in (1, 5, 8, 12)] == [0.01, None, 0.1, 0.1]


def test_frozen_and_untracked_layers_stay_and_are_used_as_they_are():
    net = nn.Sequential(*(nn.BatchNorm2d(3, track_running_stats=at != 2) for at in range(5)))
    net.train()
    for at in (0, 1, 3, 4):
        nn.init.uniform_(net[at].running_mean, -2, 2)
        nn.init.uniform_(net[at].running_var, 0.5, 3)
    freeze(net[0])
    net[1].eval()
    net[3].track_running_stats = False
    kept = {at: copy.deepcopy(net[at].state_dict()) for at in (0, 1, 3)}
    x = torch.randn(20, 3, 4, 4)
    batches = [x[:10], x[10:]]
    found = recalibrate(net, batches)
    assert [layer.status for layer in found.layers] == [
        "frozen", "frozen", "untracked", "untracked", "recalibrated",
    ]  # fmt: skip
    for at, state in kept.items():
        assert all(torch.equal(tensor, state[name]) for name, tensor in net[at].state_dict().items())
    mean, variance = two_pass(*deployed_inputs(net, batches)["4"])
    assert torch.allclose(net[4].running_mean.double(), mean, atol=1e-5)
    assert torch.allclose(net[4].running_var.double(), variance, rtol=1e-5)
    assert found.residual_after < 1e-5


def test_a_network_with_nothing_to_change_is_not_run():
    net = nn.Sequential(nn.BatchNorm1d(3))
    freeze(net)
    found = recalibrate(net, [])
    assert (found.applied, found.num_passes, found.layers[0].status) == (False, 0, "frozen")


class Branches(nn.Module):
    """A batch norm that the data never reach, one whose module isn't called, and a frozen stranger."""

    def __init__(self):
        super().__init__()
        self.bn, self.other, self.bare = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.instance = nn.InstanceNorm1d(3, track_running_stats=True)
        self.stranger = FrozenBatchNorm2d()

    def forward(self, x):
        x = self.bn(x) if len(x) < 100 else self.other(x)
        x = F.batch_norm(x, self.bare.running_mean, self.bare.running_var)
        return self.instance(x.unsqueeze(2).expand(-1, -1, 4))


class FrozenBatchNorm2d(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))


def test_what_is_not_reached_or_not_ours_is_listed():
    net = Branches()
    found = {layer.path: layer for layer in recalibrate(net, torch.randn(50, 3) * 3).layers}
    assert {path: layer.status for path, layer in found.items()} == {
        "bn": "recalibrated", "other": "unreached", "bare": "recalibrated", "instance": "unsupported",
        "stranger": "frozen",
    }  # fmt: skip
    assert net.other.running_var.tolist() == [1, 1, 1]
    assert int(net.other.num_batches_tracked) == 0
    assert all(layer.reason for path, layer in found.items() if path not in ("bn", "bare"))


class Transposed(nn.BatchNorm1d):
    """A user's batch norm for (N, L, C), called by its forward method."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def test_a_subclass_that_permutes_and_is_called_without_hooks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = Transposed(3)

        def forward(self, x):
            return self.bn.forward(x)

    net, x = Net(), torch.randn(9, 3, 3) * torch.tensor([1.0, 2.0, 3.0])
    recalibrate(net, list(x.split(2)))
    assert torch.allclose(net.bn.running_var.double(), two_pass(x.transpose(1, 2))[1], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_wrappers_are_looked_into():
    net = convnet()
    x = torch.randn(8, 2, 9, 9)
    expected = copy.deepcopy(net)
    recalibrate(expected, x)
    recalibrate(nn.DataParallel(net), x)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(net.buffers(), expected.buffers()))
    compiled = copy.deepcopy(expected)
    for buffer in compiled.buffers():
        buffer.zero_()
    recalibrate(torch.compile(compiled), x)
    assert torch.equal(compiled[5].running_var, expected[5].running_var)


def test_masked_values_are_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = BatchNorm2d(3)

        def forward(self, x, mask):
            return self.bn(x, mask)

    x = torch.randn(8, 3, 5, 5)
    mask = torch.rand(8, 5, 5) > 0.4
    values_CN = x.transpose(0, 1)[:, mask].double()
    padded = x.masked_fill(~mask.unsqueeze(1), 1e3)
    net = Net()
    found = recalibrate(net, [{"x": padded[:3], "mask": mask[:3]}, {"x": padded[3:], "mask": mask[3:]}])
    assert torch.allclose(net.bn.running_mean.double(), values_CN.mean(1), atol=1e-6)
    assert torch.allclose(net.bn.running_var.double(), values_CN.var(1), rtol=1e-6)
    assert found.layers[0].num_values == int(mask.sum())
    assert found.residual_after < 1e-5


class Bypassed(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x):
        return x


def test_nothing_is_applied_where_the_data_reaches_no_layer():
    net = Bypassed()
    for data in (torch.randn(6, 3), [torch.randn(6, 3), torch.randn(2, 3)]):
        for method in ("one-pass", "sequential"):
            found = recalibrate(net, data, method=method)
            assert not found.applied
            assert found.reason == "the data reached no batch norm whose statistics may change"
            assert [layer.status for layer in found.layers] == ["unreached"]
    assert recalibrate(net, iter([torch.randn(6, 3)])).applied is False
    assert int(net.bn.num_batches_tracked) == 0

import threading

import pytest
import timm
import torch
import torchvision
from timm.layers import norm_act
from timm.layers.split_batchnorm import SplitBatchNorm2d
from torch import nn

from cases import NestedNet, state_of
from convscope import norm
from convscope.core.errors import ConvscopeError
from convscope.fold.twin import twin_without_batch_norm

C = 5


def without(layer, randomised, shape=(3, C, 4, 6)):
    """What a layer's twin does to a random input, and that input."""
    net = randomised(nn.Sequential(nn.Identity(), layer))
    x = torch.randn(shape)
    return twin_without_batch_norm(net)(x.clone()), x


def ghost():
    return norm.GhostBatchNorm2d(C, ghost_size=2)


def frozen():
    layer = nn.Sequential(nn.BatchNorm2d(C))
    norm.freeze(layer)
    return layer[0]


PLAIN = {
    "torch": lambda: nn.BatchNorm2d(C),
    "no affine": lambda: nn.BatchNorm2d(C, affine=False),
    "no statistics": lambda: nn.BatchNorm2d(C, track_running_stats=False),
    "synchronised": lambda: nn.SyncBatchNorm(C),
    "ours": lambda: norm.BatchNorm2d(C),
    "ours, synchronised": lambda: norm.SyncBatchNorm(C),
    "ours, renorm": lambda: norm.BatchRenorm2d(C),
    "frozen by us": frozen,
    "frozen by torchvision": lambda: torchvision.ops.FrozenBatchNorm2d(C),
    "frozen by timm": lambda: norm_act.FrozenBatchNorm2d(C),
    "split": lambda: SplitBatchNorm2d(C, num_splits=2),
}


@pytest.mark.parametrize("name", PLAIN)
def test_every_kind_becomes_an_identity(name, randomised):
    y, x = without(PLAIN[name](), randomised)
    assert torch.equal(y, x)


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.BatchNorm1d(C), (4, C)), (nn.BatchNorm1d(C), (4, C, 3)), (nn.BatchNorm3d(C), (2, C, 3, 2, 4)),
    (norm.BatchNorm1d(C), (4, C)), (norm.BatchNorm3d(C), (2, C, 3, 2, 4)),
])  # fmt: skip
def test_other_ranks(layer, shape, randomised):
    y, x = without(layer, randomised, shape)
    assert torch.equal(y, x)


@pytest.mark.parametrize("kind", [norm_act.BatchNormAct2d, norm_act.FrozenBatchNormAct2d])
def test_activation_stays(kind, randomised):
    y, x = without(kind(C, act_layer=nn.LeakyReLU, act_kwargs={"negative_slope": 0.25}), randomised)
    assert torch.equal(y, torch.where(x > 0, x, x / 4))


def test_all_of_them_go_in_all_places():
    net = timm.create_model("efficientnet_lite0")
    twin = twin_without_batch_norm(net)
    assert not [m for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert sum(isinstance(m, nn.ReLU6) for m in twin.modules()) == sum(
        isinstance(m, nn.ReLU6) for m in net.modules()
    )
    assert twin(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_a_shared_batch_norm_goes_in_both_places():
    shared = nn.BatchNorm2d(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 4, 1), shared)
    assert [type(m) for m in twin_without_batch_norm(net)][1::2] == [nn.Identity] * 2


def test_a_batch_norm_on_its_own():
    assert type(twin_without_batch_norm(nn.BatchNorm2d(3))) is nn.Identity


def test_other_norms_stay():
    layers = (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.GroupNorm(2, 4))
    twin = twin_without_batch_norm(nn.Sequential(nn.BatchNorm2d(4), *layers))
    assert [type(m) for m in twin[1:]] == [nn.InstanceNorm2d, nn.GroupNorm]


def test_the_network_stays_and_the_twin_is_in_evaluation_mode():
    net = NestedNet().train()
    kept = state_of(net)
    twin = twin_without_batch_norm(net)
    assert state_of(net) == kept
    assert not any(m.training for m in twin.modules())
    assert type(twin) is NestedNet


class Clipped(nn.BatchNorm2d):
    """Does more than its submodules tell."""

    def forward(self, x):
        return super().forward(x).clamp(min=0)


class Swapped(norm_act.BatchNormAct2d):
    """Its activation comes first."""

    def forward(self, x):
        return nn.functional.batch_norm(
            self.act(x), self.running_mean, self.running_var, self.weight, self.bias
        )


@pytest.mark.parametrize("layer", [Clipped(C), Swapped(C)])
def test_what_does_more_than_normalise_has_no_twin(layer, randomised):
    net = randomised(nn.Sequential(nn.Conv2d(3, C, 1), layer))
    kept = state_of(net)
    with pytest.raises(ConvscopeError, match=r"1: .* does more than normalise"):
        twin_without_batch_norm(net)
    assert state_of(net) == kept


def test_statistics_that_are_no_numbers_are_no_obstacle():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net[0].running_var.fill_(-1)
    assert type(twin_without_batch_norm(net)[0]) is nn.Identity


def test_half_precision(randomised):
    net = randomised(nn.Sequential(nn.Conv2d(3, C, 1), norm_act.BatchNormAct2d(C))).half()
    assert [type(m) for m in twin_without_batch_norm(net)[1].children()] == [nn.Identity, nn.ReLU]


def test_without_batch_norm_there_is_no_twin():
    with pytest.raises(ConvscopeError, match="Sequential without a batch norm module"):
        twin_without_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_a_network_that_can_not_be_copied_has_none():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net.lock = threading.Lock()
    with pytest.raises(ConvscopeError, match="can't be copied"):
        twin_without_batch_norm(net)

"""State dicts between PyTorch's layers and ours, both ways, in real networks: keys, order, outputs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError
from convscope.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.conversion.convert import convert
from zoo import SAMPLE, make, staged

FEW = ["timm:levit_128s", "torchvision:resnet18"]
# Together these have every class, activation and setting of batch norms that the sample has; one has none.
BRIEF = [
    "timm:coatnet_bn_0_rw_224", "timm:cspresnet50", "timm:dpn48b", "timm:efficientnet_lite0",
    "timm:levit_128s", "timm:mobilenetv3_small_050", "timm:resnetv2_50d", "torchvision:googlenet",
    "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1",
]  # fmt: skip
OURS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
CHAIN = ("sync", "renorm", "torch-sync", "ghost", "batch", "torch")


def unlike_new(net, seed):
    """Give every layer statistics, gains and biases that no constructor sets."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, _BatchNorm):
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.8, 1.2, generator=generator)
                layer.num_batches_tracked.fill_(seed)
                layer.weight.uniform_(0.8, 1.2, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
    return net


def outputs(net, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(net.eval()(x)) if isinstance(leaf, torch.Tensor)]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(bool(each.isfinite().all()) for each in expected)


def swapped_both_ways(made, shape):
    if not any(isinstance(module, _BatchNorm) for module in made.modules()):
        with pytest.raises(ConvscopeError, match="without a batch norm"):
            convert(made, "batch")
        return None
    torch_net = unlike_new(made, 1)
    net = copy.deepcopy(torch_net)
    conversion = convert(net, "batch")
    assert conversion.refused == conversion.kept == 0
    assert all(entry.difference == 0.0 for entry in conversion.entries)
    assert all(isinstance(module, OURS) for module in net.modules() if isinstance(module, _BatchNorm))

    unlike_new(net, 2)
    assert list(net.state_dict()) == list(torch_net.state_dict())
    net.load_state_dict(torch_net.state_dict())  # theirs into ours
    expected = outputs(torch_net, shape)
    assert_equal(outputs(net, shape), expected)

    unlike_new(net, 3)
    mine = outputs(net, shape)
    torch_net.load_state_dict(net.state_dict())  # ours into theirs
    assert_equal(outputs(torch_net, shape), mine)
    return torch_net, shape


def through_every_kind(torch_net, shape):
    net, expected = copy.deepcopy(torch_net), outputs(torch_net, shape)
    for kind in CHAIN:
        assert convert(net, kind).refused == 0
        assert_equal(outputs(net, shape), expected)
    assert repr(net) == repr(torch_net)
    assert [type(module) for module in net.modules()] == [type(module) for module in torch_net.modules()]
    own, theirs = net.state_dict(), torch_net.state_dict()
    assert list(own) == list(theirs)
    assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("reference", FEW)
def test_state_dicts_swap_both_ways(reference):
    swapped_both_ways(*make(reference))


@pytest.mark.parametrize("reference", ["timm:mobilenetv3_small_050", "torchvision:resnet18"])
def test_a_network_goes_through_every_kind_and_back(reference):
    made, shape = make(reference)
    through_every_kind(unlike_new(made, 1), shape)


@pytest.mark.parametrize("reference", staged(SAMPLE, BRIEF))
def test_state_dicts_swap_both_ways_over_the_zoo(reference):
    made, shape = make(reference)
    if any(isinstance(module, _BatchNorm) for module in made.modules()):
        through_every_kind(*swapped_both_ways(made, shape))
    else:
        with pytest.raises(ConvscopeError, match="without a batch norm"):
            convert(made, "batch")


@pytest.mark.whole_zoo
def test_the_brief_sample_has_all_that_the_sample_has():
    kinds = {reference: _kinds(make(reference)[0]) for reference in SAMPLE}
    assert set().union(*(kinds[reference] for reference in BRIEF)) == set().union(*kinds.values())
    assert not all(kinds[reference] for reference in BRIEF)


def _kinds(net):
    return {
        (type(layer), type(getattr(layer, "act", None)), layer.eps, layer.momentum, layer.affine)
        for layer in net.modules()
        if isinstance(layer, _BatchNorm)
    }


def test_timms_activations_survive_every_kind():
    """timm#1254: in timm's networks the activation is part of the batch norm."""
    net, shape = make("timm:resnetv2_50d")
    unlike_new(net, 1)
    acts = [layer for layer in net.modules() if isinstance(layer, _BatchNorm) and hasattr(layer, "act")]
    assert any(not isinstance(layer.act, nn.Identity) for layer in acts)
    expected = outputs(net, shape)
    dropped = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert not torch.allclose(outputs(dropped, shape)[0], expected[0])
    for kind in CHAIN:
        convert(net, kind)
        assert_equal(outputs(net, shape), expected)


def test_timms_own_classes_stand_in_where_it_has_them():
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm
    from timm.layers.norm_act import SyncBatchNormAct

    net = nn.Sequential(BatchNormAct2d(4))
    convert(net, "torch-sync")
    assert type(net[0]) is SyncBatchNormAct
    other = convert_sync_batchnorm(nn.Sequential(BatchNormAct2d(4)))
    convert(other, "torch", (2, 4, 3, 3))
    assert type(other[0]) is BatchNormAct2d

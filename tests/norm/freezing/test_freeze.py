import copy
import io
import pickle

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from cases import ResidualNet
from convscope.norm import BatchNorm2d, InstanceNorm2d
from convscope.norm.freezing.freeze import freeze, is_frozen, unfreeze
from convscope.norm.freezing.result import Frozen
from norm.freezing.by_hand import IMAGES, by_hand, used


class Doubled(nn.BatchNorm2d):
    """A user's subclass with a forward pass of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


LAYERS = {
    "torch": lambda: nn.BatchNorm2d(4, eps=1e-3),
    "torch without bias": lambda: nn.BatchNorm2d(4, bias=False),
    "torch without affine": lambda: nn.BatchNorm2d(4, affine=False),
    "torch cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "torch synchronised": lambda: nn.SyncBatchNorm(4),
    "torch instance": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "ours": lambda: BatchNorm2d(4),
    "our instance": lambda: InstanceNorm2d(4, affine=True, track_running_stats=True),
    "timm with activation": lambda: BatchNormAct2d(4, drop_layer=nn.Identity, act_layer=nn.LeakyReLU),
    "subclass": lambda: Doubled(4),
}


def reloaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def with_state_loaded(model):
    model.load_state_dict(model.state_dict())
    return model


WAYS = {
    "train()": lambda net: net.train(),
    "train() of a parent": lambda net: nn.Sequential(net).train()[0],
    "train() of itself": lambda net: (net[0].train(), net)[1],
    "training = True": lambda net: (setattr(net[0], "training", True), net)[1],
    "eval() and train()": lambda net: net.eval().train(),
    "deepcopy": lambda net: copy.deepcopy(net).train(),
    "copy of a copy": lambda net: copy.deepcopy(copy.copy(net)).train(),
    "pickle": lambda net: pickle.loads(pickle.dumps(net)).train(),
    "torch.save": lambda net: reloaded(net).train(),
    "averaged model": lambda net: AveragedModel(net).train().module,
    "apply": lambda net: net.apply(lambda module: module.train()),
    "state dict": lambda net: with_state_loaded(net).train(),
    "half and back": lambda net: net.bfloat16().float().train(),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_running_statistics_are_used_and_never_move(name, way):
    net = nn.Sequential(used(LAYERS[name]())).bfloat16().float()
    keys = list(net.state_dict())
    freeze(net)
    net = WAYS[way](net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(5, 4, 3, 2) * 3 + 1
    torch.testing.assert_close(net(x).double(), by_hand(net[0], name, x), rtol=1e-5, atol=1e-5)
    assert is_frozen(net[0])
    assert not net[0].training
    assert list(net.state_dict()) == keys
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


COPIES = {
    "unfreeze": lambda net: net,
    "unfreeze after pickle": reloaded,
    "unfreeze after deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("undo", ["undo", "with", *COPIES])
def test_everything_comes_back(name, training, undo):
    net = nn.Sequential(used(LAYERS[name]())).train(training)
    for parameter in list(net.parameters())[:1]:
        parameter.requires_grad_(False)
    plain, layer = copy.deepcopy(net), net[0]
    hook = layer.register_forward_hook(lambda module, args, result: result)
    attributes, tensors = set(vars(layer)), dict(layer._parameters)
    if undo == "with":
        with pytest.raises(RuntimeError, match="in the block"), freeze(net) as frozen:
            assert frozen.paths == ("0",)
            raise RuntimeError("in the block")
    elif undo == "undo":
        frozen = freeze(net)
        frozen.undo()
        frozen.undo()
    else:
        freeze(net)
        if undo == "unfreeze after pickle":
            hook.remove()  # a lambda can't be pickled
        net = COPIES[undo](net)
        assert unfreeze(net) == ("0",)
        assert unfreeze(net) == ()
    assert type(net[0]) is type(plain[0])
    assert set(vars(net[0])) == attributes
    assert [module.training for module in net.modules()] == [module.training for module in plain.modules()]
    for before, after in zip(plain.parameters(), net.parameters(), strict=True):
        assert before.requires_grad == after.requires_grad
    for before, after in zip(plain.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.equal(before, after)
    if net[0] is layer:
        assert all(layer._parameters[key] is tensor for key, tensor in tensors.items())
    x = torch.randn(5, 4, 3, 2)
    torch.manual_seed(1)
    expected = plain.train()(x)
    torch.manual_seed(1)
    assert torch.equal(net.train()(x), expected)
    assert torch.equal(net[0].running_mean, plain[0].running_mean)


def test_the_mode_that_was_asked_for_last_is_the_one_that_comes_back():
    net = ResidualNet().eval()
    with freeze(net):
        net.train()
    assert all(module.training for module in net.modules())
    with freeze(net, "stem"):
        net.eval()
    assert not any(module.training for module in net.modules())


def test_what_is_inside_a_frozen_layer_follows_train():
    layer = BatchNormAct2d(4, drop_layer=nn.Dropout)
    freeze(layer)
    assert (layer.eval().drop.training, layer.train().drop.training) == (False, True)


@pytest.mark.parametrize("breaks", [False, True])
def test_update_bn_leaves_frozen_layers_alone(breaks):
    net = nn.Sequential(used(nn.BatchNorm2d(4, momentum=0.3)), nn.BatchNorm2d(4))
    freeze(net, "0")
    before = copy.deepcopy(net[0].state_dict())

    def batches():
        yield torch.randn(5, 4, 3, 2)
        if breaks:
            raise RuntimeError("a loader that breaks")

    if breaks:
        with pytest.raises(RuntimeError, match="breaks"):
            update_bn(batches(), net)
    else:
        update_bn(batches(), net)
    assert net[0].momentum == 0.3
    assert all(torch.equal(before[key], value) for key, value in net[0].state_dict().items())
    assert net[1].num_batches_tracked == 1
    net[0].momentum = 0.2  # a number still can be set
    unfreeze(net)
    assert net[0].momentum == 0.2


def test_a_layer_built_from_a_frozen_ones_class_is_frozen_too():
    layer = nn.BatchNorm2d(4)
    freeze(layer)
    other = type(layer)(8, momentum=0.2).train()
    other(torch.randn(5, 8, 3, 2))
    assert (other.training, int(other.num_batches_tracked), other.momentum) == (False, 0, 0.2)
    assert unfreeze(other) == ("",)
    assert type(other) is nn.BatchNorm2d
    assert other.training


def test_a_replica_as_data_parallel_makes_them():
    layer = used(nn.BatchNorm2d(4))
    freeze(layer)
    replica = layer._replicate_for_data_parallel().train()
    replica._parameters.update(layer._parameters)
    x = torch.randn(5, 4, 3, 2)
    assert torch.equal(replica(x), layer(x))
    assert layer.num_batches_tracked == 0


def test_a_state_dict_still_loads_into_a_frozen_layer():
    other = used(nn.BatchNorm2d(4))
    frozen = nn.BatchNorm2d(4)
    freeze(frozen)
    for assign in (False, True):
        frozen.load_state_dict(other.state_dict(), assign=assign)
        assert torch.equal(frozen.running_mean, other.running_mean)


def test_gamma_and_beta_stop_training_and_their_stale_gradients_go():
    net = ResidualNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        net(IMAGES).square().sum().backward()
        optimizer.step()
    freeze(net)
    gammas = [
        parameter for name, parameter in net.named_parameters() if "bn" in name or name.startswith("stem.1")
    ]
    assert len(gammas) == 6
    assert all(parameter.grad is None for parameter in gammas)
    before = [parameter.detach().clone() for parameter in gammas]
    optimizer.step()
    net(IMAGES).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, gammas))
    assert net.conv1.weight.grad is not None


@pytest.mark.parametrize("make", [nn.BatchNorm2d, BatchNorm2d])
def test_gradients_without_affine_go_through_the_running_statistics(make):
    layer = used(make(3)).double()
    freeze(layer, affine=False)
    layer.train()
    x = (torch.randn(4, 3, 5, 2, dtype=torch.float64) * 2 + 1).requires_grad_()
    dy = torch.randn_like(x)
    layer(x).backward(dy)
    for c in range(3):  # y = γ r (x − μ) + β with constants r and μ
        r = (layer.running_var[c] + layer.eps) ** -0.5
        normalised = (x.detach()[:, c] - layer.running_mean[c]) * r
        torch.testing.assert_close(layer.weight.grad[c], (dy[:, c] * normalised).sum())
        torch.testing.assert_close(layer.bias.grad[c], dy[:, c].sum())
        torch.testing.assert_close(x.grad[:, c], dy[:, c] * r * layer.weight.detach()[c])


@pytest.mark.parametrize(
    ("only", "frozen"),
    [
        (None, ["stem.1", "bn1", "bn2"]),
        ("", ["stem.1", "bn1", "bn2"]),
        ("stem", ["stem.1"]),
        ("stem.1", ["stem.1"]),
        ("bn?", ["bn1", "bn2"]),
        ("*1", ["stem.1", "bn1"]),
        (["bn2", "stem.*"], ["stem.1", "bn2"]),
        (iter(("bn2", "bn2")), ["bn2"]),
        ([], []),
    ],
)
def test_a_part_of_the_network(only, frozen):
    net = ResidualNet()
    assert list(freeze(net, only).paths) == frozen
    assert [path for path, module in net.named_modules() if is_frozen(module)] == frozen


def test_a_shared_layer_is_found_by_both_paths_and_frozen_once():
    shared = nn.BatchNorm2d(3)
    net = nn.ModuleDict({"neck": nn.Sequential(shared), "head": nn.Sequential(nn.ReLU(), shared)})
    frozen = freeze(net, "head")
    assert frozen.paths == ("neck.0",)
    frozen.undo()
    assert type(shared) is nn.BatchNorm2d


def test_layers_that_share_gamma():
    first, second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    freeze(net).undo()
    assert first.weight.requires_grad
    freeze(net)
    unfreeze(net)
    assert first.weight.requires_grad


def test_freezing_twice_and_the_order_of_undoing():
    net = ResidualNet()
    inner = freeze(net, "bn1")
    outer = freeze(net)
    assert outer.paths == ("stem.1", "bn2")
    assert outer.already == ("bn1",)
    outer.undo()
    assert [is_frozen(layer) for layer in (net.stem[1], net.bn1, net.bn2)] == [False, True, False]
    unfreeze(net)
    again = freeze(net, "bn1")
    inner.undo()  # that freezing is over; this one is another
    assert is_frozen(net.bn1)
    again.undo()
    assert not is_frozen(net.bn1)


def test_affine_can_be_frozen_later_and_undone_alone():
    net = nn.Sequential(nn.BatchNorm2d(3))
    outer = freeze(net, affine=False)
    assert net[0].weight.requires_grad
    with freeze(net) as inner:
        assert inner.paths == ("0",)
        assert not net[0].weight.requires_grad
        assert freeze(net).already == ("0",)
    assert net[0].weight.requires_grad
    assert is_frozen(net[0])
    freeze(net)
    unfreeze(net)
    assert net[0].weight.requires_grad
    assert type(net[0]) is nn.BatchNorm2d
    outer.undo()


def test_gamma_and_beta_frozen_again_after_a_hand_let_one_train():
    layer = nn.BatchNorm2d(3)
    freeze(layer)
    layer.bias.requires_grad_(True)
    again = freeze(layer)
    assert again.paths == ("",)
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (False, False)
    again.undo()
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (False, True)
    freeze(layer)
    unfreeze(layer)  # to how they were before the first freezing
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, True)


def test_a_network_without_batch_norm_has_nothing_to_freeze():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4))
    frozen = freeze(net)
    assert frozen == Frozen((), (), (), True)
    assert "no layer with running statistics" in str(frozen)
    assert unfreeze(net) == ()


def test_modules_with_statistics_of_an_unknown_class_are_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))
            self.register_buffer("running_var", torch.ones(3))

    net = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(Own()))
    assert freeze(net).left == ("1.0",)
    assert freeze(net, "0").left == ()

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope import ConvscopeError
from convscope import norm as ours
from convscope.norm.conversion import changing
from convscope.norm.conversion.convert import convert
from convscope.norm.layers import sync as ours_sync
from norm.conversion.converted_nets import (
    Net,
    ReluBatchNorm,
    assert_same_state,
    first_gradients,
    state,
    trained,
)

SHAPE = (4, 3, 9, 8)
SAME_STATE = ("batch", "sync", "torch-sync", "renorm", "ghost", "torch")
DIMS = {1: (5,), 2: (4, 3), 3: (3, 4, 2)}
TORCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
OURS = {1: ours.BatchNorm1d, 2: ours.BatchNorm2d, 3: ours.BatchNorm3d}


@pytest.fixture
def net():
    return trained(Net(), *SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torch_to_ours_and_back_in_every_rank_and_dtype(rank, dtype):
    torch_net = trained(nn.Sequential(TORCH[rank](5, momentum=None)).to(dtype), 6, 5, *DIMS[rank])
    net, x = copy.deepcopy(torch_net), torch.randn(6, 5, *DIMS[rank]).to(dtype)
    before = state(net)
    conversion = convert(net, "batch", x)
    assert type(net[0]) is OURS[rank]
    assert conversion.entries[0].difference == 0.0
    assert conversion.differences[0].bit_equal
    assert conversion.differences[1].max_relative <= 8 * torch.finfo(dtype).eps
    assert torch.equal(net.eval()(x), torch_net.eval()(x))
    net.train()
    convert(net, "torch")
    assert_same_state(before, state(net), same_buffers=dtype != torch.bfloat16)


@pytest.mark.parametrize("kind", SAME_STATE)
def test_every_kind_says_the_same_in_evaluation_and_comes_back_as_it_was(net, kind):
    before, shown, x = state(net), repr(net), torch.randn(SHAPE)
    expected = copy.deepcopy(net).eval()(x)
    conversion = convert(net, kind, x)
    assert conversion.refused == 0
    assert conversion.differences[0].bit_equal or kind == "torch"
    assert torch.equal(copy.deepcopy(net).eval()(x), expected)
    convert(net, "torch")
    assert_same_state(before, state(net))
    assert repr(net) == shown


def test_a_way_through_all_kinds_ends_where_it_began(net):
    before, x = state(net), torch.randn(SHAPE)
    expected = copy.deepcopy(net).eval()(x)
    for kind in (*SAME_STATE[:-1], *reversed(SAME_STATE[:-1]), "convscope", "torch"):
        convert(net, kind)
        assert torch.equal(copy.deepcopy(net).eval()(x), expected), kind
    assert_same_state(before, state(net))


@pytest.mark.parametrize("kind", ["batch", "sync", "torch-sync"])
def test_a_training_step_is_that_of_the_unconverted_network(kind):
    reference = trained(Net(), *SHAPE).double()
    net, x = copy.deepcopy(reference), torch.randn(SHAPE, dtype=torch.float64)
    conversion = convert(net, kind, x)
    out, gradients = first_gradients(net.train(), x)
    expected, expected_gradients = first_gradients(reference.train(), x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-12 * largest)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(dict(net.named_buffers())[name], buffer, rtol=1e-12, atol=1e-14)
    assert [each.what for each in conversion.differences] == ["outputs", "outputs", "running statistics"]
    assert all(each.max_relative < 1e-12 for each in conversion.differences)


@pytest.mark.parametrize("kind", ["batch", "sync", "group"])
def test_an_optimizer_goes_on_with_its_state(kind):
    reference = trained(Net(), *SHAPE).double()
    net = copy.deepcopy(reference)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    optimizers = [torch.optim.SGD(each.parameters(), 0.1, momentum=0.9) for each in (net, reference)]
    for each, optimizer in zip((net, reference), optimizers, strict=True):
        first_gradients(each.train(), x[0])
        optimizer.step()
    held = {id(p): optimizers[0].state[p]["momentum_buffer"].clone() for p in net.parameters()}
    convert(net, kind, optimizer=optimizers[0])
    assert {id(p) for p in net.parameters()} == held.keys()
    for parameter in net.parameters():
        assert torch.equal(optimizers[0].state[parameter]["momentum_buffer"], held[id(parameter)])
    for each, optimizer in zip((net, reference), optimizers, strict=True):
        first_gradients(each, x[1])
        optimizer.step()
    if kind != "group":
        for mine, theirs in zip(net.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_hooks_modes_and_frozen_parameters_stay(net):
    calls = []
    net.bn1.register_forward_hook(lambda module, args, out: calls.append(type(module)))
    net.bn2.eval()
    net.bn2.weight.requires_grad_(False)
    convert(net, "batch")
    net(torch.randn(SHAPE))
    assert calls == [ours.BatchNorm2d] * 2  # under both its paths
    assert not net.bn2.training
    assert net.bn1.training
    assert not net.bn2.weight.requires_grad


def test_a_layer_under_two_paths_is_one_layer_and_one_entry(net):
    conversion = convert(net, "batch")
    assert net.again is net.bn1
    assert [(entry.path, entry.also) for entry in conversion.entries] == [
        ("bn1", ("again",)),
        ("bn2", ()),
        ("bn3", ()),
    ]


def test_torch_drops_the_activation_and_convert_keeps_it():
    """pytorch#187298: the contrast is what this library is for."""
    net, x = trained(nn.Sequential(ReluBatchNorm(3)), *SHAPE).eval(), torch.randn(SHAPE)
    expected = net(x)
    assert (expected < 0).any()
    dropped = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))(x)
    assert not torch.allclose(dropped, expected)
    for kind, cls in (("torch-sync", nn.SyncBatchNorm), ("sync", ours_sync.SyncBatchNorm)):
        convert(net, kind)
        assert isinstance(net[0], cls)
        assert isinstance(net[0], ReluBatchNorm)
        assert torch.equal(net(x), expected)


def test_other_members_of_the_family_both_ways():
    net = nn.Sequential(
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(5),
        nn.SyncBatchNorm(4),
    )
    before, x = state(net), torch.randn(3, 4, 6, 5)
    conversion = convert(net, "convscope", x)
    assert [type(layer) for layer in net] == [
        ours.InstanceNorm2d,
        ours.GroupNorm,
        ours.LayerNorm,
        ours_sync.SyncBatchNorm,
    ]
    assert all(each.max_relative < 1e-5 for each in conversion.differences)
    assert all(entry.difference < 1e-6 for entry in conversion.entries)
    assert convert(net, "convscope").converted == 0
    convert(net, "torch", x)
    assert [type(layer) for layer in net][:3] == [nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm]
    assert type(net[3]) is nn.BatchNorm2d
    convert(net, "torch-sync", only="3")
    assert_same_state(before, state(net))


def test_a_layer_on_its_own_and_a_part_of_a_network(net):
    layer = nn.BatchNorm1d(4)
    assert convert(layer, "batch", (6, 4)).entries[0].path == ""
    assert type(layer) is ours.BatchNorm1d
    convert(net, "batch", only="bn3")
    assert type(net.bn1) is nn.BatchNorm2d
    assert type(net.bn3) is ours.BatchNorm1d


@pytest.mark.parametrize(("to", "options", "words"), [
    ("btach", {}, "did you mean 'batch'"),
    (7, {}, "unknown kind of layer 7"),
    ("sync", {"process_gruop": 1}, "did you mean 'process_group'"),
    ("torch", {"momentum": 1}, "unknown setting 'momentum' for 'torch'; expected none"),
    ("batch", {"data": torch.zeros(2)}, "data for 'batch'"),
    ("group", {"num_groups": True}, "num_groups=True"),
    ("ghost", {"ghost_batch_size": 0}, "ghost_batch_size=0; expected a whole number of samples"),
    ("renorm", {"r_max": "3"}, "r_max='3' for 'renorm'"),
    ("group", {"num_groups": 0}, "num_groups=0"),
    ("batch", {"only": "nowhere"}, "nowhere"),
    ("batch", {"inputs": (2, 5, 9, 9)}, "the network doesn't run on the inputs in evaluation mode"),
    ("batch", {"inputs": "images"}, "inputs of type str"),
])  # fmt: skip
def test_bad_calls(net, to, options, words):
    before = state(net)
    with pytest.raises(ConvscopeError, match=words):
        convert(net, to, **options)
    assert_same_state(before, state(net))


def test_a_network_without_such_layers():
    with pytest.raises(ConvscopeError, match="a Sequential without a batch norm"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4)), "sync")
    with pytest.raises(ConvscopeError, match="network"):
        convert("resnet18", "sync")


@pytest.mark.parametrize(
    ("kind", "at"), [("batch", at) for at in range(6)] + [("sync", 4), ("group", 1), ("group", 3)]
)
def test_an_exception_in_the_middle_leaves_the_model_as_it_was(net, monkeypatch, kind, at):
    """Whether it comes while the three layers are tried one by one, or while they are changed."""
    before, make, calls = state(net), changing.Change.make, []

    def failing(change):
        make(change)
        calls.append(change)
        if len(calls) > at:
            raise KeyboardInterrupt

    monkeypatch.setattr(changing.Change, "make", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(net, kind)
    assert_same_state(before, state(net))


@pytest.mark.parametrize("runs", [2, 3])
def test_a_network_that_fails_after_the_change_is_as_it_was(net, runs):
    left = [runs]

    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("no more")
            return self.net(x)

    failing = Failing()
    before = state(failing)
    with pytest.raises(ConvscopeError, match="no more"):
        convert(failing, "batch", SHAPE)
    assert_same_state(before, state(failing))


def test_the_oracle_is_pytorchs_own_function():
    """In training, converted layers give what torch.nn.functional gives in float64."""
    net = trained(nn.Sequential(nn.BatchNorm2d(3)), *SHAPE)
    x = torch.randn(SHAPE)
    weight, bias = net[0].weight.double(), net[0].bias.double()
    convert(net, "batch")
    expected = F.batch_norm(x.double(), None, None, weight, bias, True)
    torch.testing.assert_close(net(x).double(), expected, rtol=0, atol=2e-6)

"""Frozen layers in PyTorch's tools, in convscope's own readings and in timm's networks."""

import copy
import json
import pickle

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import convscope as cs
from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.norm.freezing.freeze import freeze, is_frozen, unfreeze
from norm.freezing.by_hand import IMAGES, by_hand, used


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(one_process):
    net = ResidualNet()
    frozen = freeze(net)
    wrapped = DistributedDataParallel(net)
    before = copy.deepcopy(dict(net.named_buffers()))
    for _ in range(2):
        wrapped.train()(IMAGES).square().sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    with pytest.raises(ConvscopeError, match=r"unfreeze given a network wrapped by DistributedDataParallel"):
        unfreeze(wrapped)
    frozen.undo()
    with pytest.raises(ConvscopeError, match=r"freeze its \.module and wrap that again, or use affine=False"):
        freeze(wrapped)
    assert not any(map(is_frozen, net.modules()))
    assert freeze(wrapped, affine=False).paths == ("module.stem.1", "module.bn1", "module.bn2")
    for _ in range(2):
        wrapped.train()(IMAGES).square().sum().backward()
    assert net.bn1.num_batches_tracked == 0
    assert unfreeze(wrapped)


def compiled(net, x):
    return torch.compile(net, backend="eager")


TOOLS = {
    "compile": compiled,
    "script": lambda net, x: torch.jit.script(net),
    "trace": lambda net, x: torch.jit.trace(net, x),
    "symbolic trace": lambda net, x: torch.fx.symbolic_trace(net),
    "export": lambda net, x: torch.export.export(net, (x,)).module(),
    "data parallel": lambda net, x: nn.DataParallel(net),
    "functional call": lambda net, x: (
        lambda x: torch.func.functional_call(net, dict(net.named_parameters()), (x,))
    ),
    "vmap": lambda net, x: lambda x: torch.vmap(lambda one: net(one[None])[0])(x),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("tool", TOOLS)
def test_a_frozen_plain_network_in_pytorchs_tools(tool):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), used(nn.BatchNorm2d(4)), nn.ReLU())
    x = torch.randn(2, 3, 5, 4)
    with torch.no_grad():
        expected = by_hand(net[1], "torch", net[0](x)).relu()
    freeze(net)
    before = copy.deepcopy(net.state_dict())
    y = TOOLS[tool](net.train(), x)(x)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_freezing_reaches_a_network_that_is_compiled_already():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    fast, x = torch.compile(net, backend="eager"), torch.randn(2, 3, 5, 4)
    fast(x)
    with freeze(fast):
        fast.train()
        fast(x)
        assert net[1].num_batches_tracked == 1
    fast(x)
    assert net[1].num_batches_tracked == 2


def test_convscopes_own_readings_of_a_frozen_network():
    net = ResidualNet()
    net(IMAGES)
    plain = cs.cost(copy.deepcopy(net), (2, 3, 33, 29)).totals
    freeze(net)
    net.train().drop.eval()
    before = state_of(net)
    assert cs.cost(net, (2, 3, 33, 29)).totals.macs == plain.macs
    cs.cost(net, (2, 3, 33, 29), plan=cs.TrainingPlan())
    folded = cs.fold(net, (2, 3, 33, 29))
    assert (folded.ledger.folded, folded.ledger.kept) == (3, 0)
    cs.checkup(net, [(IMAGES, torch.tensor([0, 1, 2, 3, 4, 0]))])
    assert state_of(net) == before
    unfreeze(net)
    assert net.bn1.training  # the readings' own eval() isn't what was asked for last


def test_a_result_as_json_and_in_the_terminal():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(5, affine=False))
    freeze(net, "0").undo()
    net[0].eval()
    frozen = freeze(net)
    assert json.loads(frozen.to_json())["layers"][0] == {
        "path": "0",
        "layer": "BatchNorm2d",
        "num_features": 3,
        "was_training": False,
        "weight_trained": True,
        "bias_trained": True,
    }
    lines = [" ".join(line.split()) for line in str(frozen).splitlines()]
    assert lines[0] == "2 layers frozen: running statistics are used, gamma and beta don't train"
    assert lines[3:] == ["0 BatchNorm2d 3 evaluation yes yes", "1 BatchNorm2d 5 training – –"]
    assert str(freeze(net)).splitlines()[0] == "nothing to freeze"
    other = nn.Module()
    other.register_buffer("running_mean", torch.zeros(3))
    other.register_buffer("running_var", torch.ones(3))
    lines = [" ".join(line.split()) for line in str(freeze(nn.Sequential(other))).splitlines()]
    assert lines[0] == "nothing to freeze: no layer with running statistics that is PyTorch's or built on one"
    assert lines[2] == "left as they are: running statistics of their own 0"
    assert str(net[0]).startswith("FrozenBatchNorm2d(3, ")


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "efficientnet_b0", "regnetx_002", "hrnet_w18_small"]
)
def test_networks_of_timm(name):
    net = timm.create_model(name).eval()
    x = torch.randn(2, 3, 64, 64)
    expected, before = net(x), copy.deepcopy(net.state_dict())
    frozen = freeze(net)
    assert len(frozen.paths) == sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    net = pickle.loads(pickle.dumps(net)).train()
    for module in net.modules():
        if not is_frozen(module):
            module.training = False
    assert torch.equal(net(x), expected)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())

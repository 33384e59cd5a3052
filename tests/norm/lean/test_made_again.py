"""How often, in what order and to which memory values are made again."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convscope as cs
from convscope.norm.lean import again, slices
from norm.lean.measured import assert_same_bits, step


class _Net(nn.Module):
    """Norms, each with an activation, before convolutions; a sum over both of them."""

    def __init__(self, activation):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.activation = activation
        with torch.no_grad():
            for norm in self.norms:
                norm.weight.fill_(4)  # so that much is clipped

    def forward(self, x):
        first = self.convs[0](x)
        y = self.convs[1](self.activation(self.norms[0](first)))
        y = self.activation(self.norms[1](y))
        return self.convs[3](self.convs[2](y) + first)


@pytest.fixture
def made(monkeypatch):
    """The values that are made again, in order."""
    found, make = [], again._made_again
    monkeypatch.setattr(again, "_made_again", lambda value: found.append(value) or make(value))
    return found


def _same_bits(activation, dtype=torch.float32):
    torch.manual_seed(1)
    net, x = _Net(activation).to(dtype), torch.randn(3, 4, 6, 5, dtype=dtype, requires_grad=True)
    lean = copy.deepcopy(net)
    handle = cs.norm.lean(lean)
    assert_same_bits(step(lean, x), step(net, x))
    return handle.savings


@pytest.mark.parametrize("in_place", [True, False])
def test_what_relu6_and_a_convolution_ask_for_is_made_once(in_place, made):
    """PyTorch saves both maps, before ReLU6 and behind it; that behind it also says what is clipped."""
    found = _same_bits(lambda x: F.relu6(x, in_place))
    assert [value.origin.func._opname for value in made] == ["hardtanh", "hardtanh"]
    maps = 3 * 4 * 6 * 5 * 4
    assert found.bytes_without // maps == 1 + 2 * 3 + 1  # images; norm, ReLU6, convolution; the sum
    assert found.bytes_kept // maps == 1 + 2 + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_place", [True, False])
def test_limits_that_a_precision_may_round_are_asked_of_the_map_itself(in_place, dtype, made):
    """bfloat16 has 0.69921875 for 0.7: what is clipped there would look as if it weren't."""
    _same_bits(lambda x: F.hardtanh(x, -0.3, 0.7, in_place), dtype)
    assert len(made) == (4 if in_place else 2)  # a copy of the map; the map, on the way to the other one


def test_a_map_that_both_an_activation_and_its_convolution_ask_for_is_copied_for_neither(made):
    def copies():
        with torch.autograd.profiler.profile() as profile:
            out.sum().backward()
        return sum(event.count for event in profile.key_averages() if event.key == "aten::clone")

    net, counts = _Net(lambda x: F.silu(x, inplace=True)), []
    for prepare in (lambda net: None, cs.norm.lean):
        twin = copy.deepcopy(net)
        prepare(twin)
        out = twin(torch.ones(3, 4, 6, 5))
        counts.append(copies())
    assert len(made) == 4
    assert counts[1] == counts[0]


@pytest.mark.filterwarnings("ignore::convscope.norm.NothingSavedWarning")
def test_sums_are_kept_on_request():
    torch.manual_seed(1)
    kept = {}
    for residual in (True, False):
        net = nn.Sequential(nn.Conv2d(2, 4, 1), *(_Block() for _ in range(3)))
        handle = cs.norm.lean(net, residual=residual)
        net(torch.randn(3, 2, 6, 5)).sum().backward()
        kept[residual] = handle.savings.bytes_kept
    assert kept[True] < kept[False] == handle.savings.bytes_without


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) + x


def _step_of(*, is_norm=False, writes_over=None):
    """One step of a run in slices, as far as who writes where goes."""
    made = slices._Step.__new__(slices._Step)
    made.is_norm, made.writes_over, made.out = is_norm, writes_over, None
    return made


class _Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


@pytest.mark.parametrize(
    ("steps", "wanted", "norms_write_to"),
    [
        ("N0", "1", {0: 1}),  # a norm and one activation over it
        ("N01", "2", {0: 2}),  # two of them
        ("N", "0", {0: 0}),  # the norm's own result is wanted
        ("N-", "1", {}),  # an activation with a result of its own
        ("N-", "01", {0: 0}),
        ("N0N2", "13", {0: 1, 2: 3}),  # two chains
        ("NN-", "2", {}),  # a sum of two norms, out of place
        ("NN0", "2", {0: 2}),  # over the first
    ],
)
def test_norms_write_where_their_chain_ends(steps, wanted, norms_write_to):
    made = [_Named(f"value {number}") for number in range(len(steps))]
    made_steps = [
        _step_of(is_norm=kind == "N", writes_over=int(kind) if kind.isdigit() else None) for kind in steps
    ]
    whole = {made[int(number)]: torch.empty(1) for number in wanted}
    ends = slices._let_write_in_place(made_steps, made, whole)
    found = {
        number: next(place for place, value in enumerate(made) if whole.get(value) is each.out)
        for number, each in enumerate(made_steps)
        if each.out is not None
    }
    assert found == norms_write_to
    assert ends == {made[place] for place in norms_write_to.values()}

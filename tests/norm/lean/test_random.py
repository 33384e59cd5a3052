"""Whatever a residual network is made of, a lean step has the bits of a plain one and keeps no more."""

import copy
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import convscope as cs
from convscope.norm.lean import slices
from norm.lean.measured import assert_same_bits, saved_bytes, step

ACTIVATIONS = {
    "none": lambda x, _: x,
    "relu": lambda x, inplace: F.relu(x, inplace),
    "relu6": lambda x, inplace: F.relu6(x, inplace),
    "hardtanh": lambda x, inplace: F.hardtanh(x, -0.3, 0.7, inplace),
    "leaky_relu": lambda x, inplace: F.leaky_relu(x, 0.1, inplace),
    "elu": lambda x, inplace: F.elu(x, 1.0, inplace),
    "silu": lambda x, inplace: F.silu(x, inplace),
    "hardswish": lambda x, inplace: F.hardswish(x, inplace),
    "hardsigmoid": lambda x, inplace: F.hardsigmoid(x, inplace),
    "gelu": lambda x, _: F.gelu(x),
    "tanh": lambda x, inplace: x.tanh_() if inplace else x.tanh(),
    "clamp": lambda x, inplace: x.clamp_(-1, 1) if inplace else x.clamp(-1, 1),
}
JOINS = ("none", "add", "in place", "scaled", "difference", "product", "joined", "earlier")
NORMS = ("training", "evaluation", "frozen", "no statistics", "group", "none")
POOLS = ("none", "none", "largest", "mean", "overlapping")


@dataclass(frozen=True)
class Unit:
    """A convolution with its norm and its activation, in one order or the other."""

    norm: str
    activation: str
    in_place: bool
    is_norm_first: bool
    is_wide: bool


@dataclass(frozen=True)
class Block:
    """Units, a gate, a shortcut, an activation and a pool; perhaps with an earlier block's modules."""

    units: tuple[Unit, ...]
    gated: bool
    join: str
    last: str
    in_place: bool
    pool: str
    modules_of: int | None


class Network(nn.Module):
    """What the blocks say, one after the other."""

    def __init__(self, blocks, width):
        super().__init__()
        self.blocks_of_it, self.stem = blocks, nn.Conv2d(2, width, 1)
        self.convs, self.norms, self.gates, self.joints = (nn.ModuleDict() for _ in range(4))
        for number, block in enumerate(blocks):
            self.gates[str(number)] = nn.Linear(width, width)
            self.joints[str(number)] = nn.Conv2d(2 * width, width, 1)
            for place, unit in enumerate(block.units):
                kernel = 3 if unit.is_wide else 1
                conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
                self.convs[f"{number}-{place}"] = conv
                self.norms[f"{number}-{place}"] = _norm(unit.norm, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.blocks_of_it):
            before = x
            x = self._body(block, number, x)
            x = self._joined(block, number, x, before, maps)
            x = ACTIVATIONS[block.last](x, block.in_place)
            maps.append(x)
            x = _pooled(block.pool, x)
        return self.head(x)

    def _body(self, block, number, x):
        for place, unit in enumerate(block.units):
            key = f"{number if block.modules_of is None else block.modules_of}-{place}"
            if key not in self.convs:
                key = f"{number}-{place}"
            if unit.is_norm_first:
                x = self.convs[key](ACTIVATIONS[unit.activation](self.norms[key](x), unit.in_place))
            else:
                x = ACTIVATIONS[unit.activation](self.norms[key](self.convs[key](x)), unit.in_place)
        if block.gated:
            x = x * self.gates[str(number)](x.mean((2, 3))).sigmoid()[:, :, None, None]
        return x

    def _joined(self, block, number, x, before, maps):
        if block.join == "in place":
            x += before
            return x
        if block.join == "earlier":
            same = [each for each in maps if each.shape == x.shape]
            return x + same[0] if same else x
        return {
            "none": lambda: x,
            "add": lambda: before + x,
            "scaled": lambda: torch.add(x, before, alpha=0.5),
            "difference": lambda: x - before,
            "product": lambda: x * before,
            "joined": lambda: self.joints[str(number)](torch.cat([before, x], 1)),
        }[block.join]()


def _norm(kind, width):
    if kind == "group":
        return nn.GroupNorm(2, width)
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(width, track_running_stats=kind != "no statistics")
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    if kind == "evaluation":
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.eval()
    elif kind == "frozen":
        norm.requires_grad_(False)
    return norm


def _pooled(pool, x):
    if min(x.shape[2:]) < 4:
        return x
    return {
        "none": lambda: x,
        "largest": lambda: F.max_pool2d(x, 2),
        "mean": lambda: F.avg_pool2d(x, 2),
        "overlapping": lambda: F.max_pool2d(x, 3, 1, 1),
    }[pool]()


units = st.builds(
    Unit,
    st.sampled_from(NORMS),
    st.sampled_from(list(ACTIVATIONS)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
blocks = st.builds(
    Block,
    st.lists(units, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from(JOINS),
    st.sampled_from(list(ACTIVATIONS)),
    st.booleans(),
    st.sampled_from(POOLS),
    st.none() | st.integers(0, 2),
)


@dataclass(frozen=True)
class Case:
    """A network, its images, and how it is made lean."""

    seed: int
    width: int
    blocks: tuple[Block, ...]
    frozen_convs: frozenset[int]
    shape: tuple[int, int, int, int]
    has_images_gradient: bool
    is_channels_last: bool
    residual: bool
    is_sliced: bool

    def made(self):
        """The network and the images."""
        torch.manual_seed(self.seed)
        layout = torch.channels_last if self.is_channels_last else torch.contiguous_format
        net = Network(self.blocks, self.width)
        for number, conv in enumerate(net.convs.values()):
            conv.requires_grad_(number not in self.frozen_convs)
        images = torch.randn(self.shape).to(memory_format=layout)
        return net.to(memory_format=layout), images.requires_grad_(self.has_images_gradient)


cases = st.builds(
    Case,
    st.integers(0, 2**31),
    st.sampled_from([2, 4, 6]),
    st.lists(blocks, min_size=1, max_size=5).map(tuple),
    st.frozensets(st.integers(0, 4), max_size=2),
    st.tuples(st.integers(1, 5), st.just(2), st.integers(4, 9), st.integers(4, 9)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def _has_the_bits_and_keeps_no_more(case):
    net, images = case.made()
    before, lean = copy.deepcopy(net), copy.deepcopy(net)
    attributes = dict(vars(lean))
    try:
        without = saved_bytes(copy.deepcopy(net), images)
        expected = [_step(net, images) for _ in range(2)]
    except RuntimeError as error:  # an operator in place on what is saved
        assume("inplace" not in str(error) and "in-place" not in str(error))
        raise
    handle = cs.norm.lean(lean, residual=case.residual)
    sizes = (0, 2 * images[:1].nbytes) if case.is_sliced else (slices._WORTH, slices._SLICE)
    with patch.multiple(slices, _WORTH=sizes[0], _SLICE=sizes[1]):
        for plain in expected:  # the second step finds moved averages
            assert_same_bits(_step(lean, images), plain)
    assert handle.savings.bytes_without == without
    assert handle.savings.bytes_kept <= without
    handle.undo()
    assert vars(lean) == attributes
    lean.load_state_dict(before.state_dict())
    assert_same_bits(_step(lean, images), expected[0])


def _step(net, images):
    images.grad = None
    return [None if tensor is None else tensor.detach().clone() for tensor in step(net, images)]


@pytest.mark.filterwarnings("ignore::convscope.norm.NothingSavedWarning")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(cases)
def test_a_random_network_has_the_bits_and_keeps_no_more(case):
    _has_the_bits_and_keeps_no_more(case)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::convscope.norm.NothingSavedWarning")
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(cases)
def test_so_have_many(case):
    _has_the_bits_and_keeps_no_more(case)

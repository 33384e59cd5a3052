"""A lean step has the bits of a plain one, and saves less: small networks with a trait each, and the zoo."""

import copy
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cases
import convscope as cs
import zoo
from convscope.norm.lean import again, slices
from norm.lean.measured import assert_same_bits, saved_bytes, step


def _chain(*activations, norm=nn.BatchNorm2d):
    layers = []
    for activation in activations:
        layers += [nn.Conv2d(6 if layers else 3, 6, 3, padding=1), norm(6), activation]
    return nn.Sequential(*layers, nn.Conv2d(6, 2, 1))


class _Sums(nn.Module):
    """Blocks of one stage; out of place, in place, scaled and with a ReLU behind the sum."""

    def __init__(self, alpha=0.5):
        super().__init__()
        self.alpha = alpha
        self.convs = nn.ModuleList(nn.Conv2d(5, 5, 3, padding=1, bias=False) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(5) for _ in range(5))
        self.stem = nn.Conv2d(3, 5, 1)
        self.scale = nn.Parameter(torch.full((5, 1, 1), 0.3))

    def forward(self, x):
        x = F.relu(self.norms[0](self.convs[0](self.stem(x))))
        x = self.norms[1](self.convs[1](x)) + x
        y = self.norms[2](self.convs[2](x))
        y += x
        y = F.relu_(y)
        y = torch.add(self.norms[3](self.convs[3](y)), y, alpha=self.alpha).relu()
        return self.norms[4](self.convs[4](y)) * self.scale - y


class _Twice(nn.Module):
    """A norm's result that two operators take, a third time by a number per sample, and saved by the last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y = F.relu(y) + y
        return self.last(y * x.mean((1, 2, 3), keepdim=True))


class _Joined(nn.Module):
    """Concatenations, a gate per channel, chunks, a transposed view and an upsampled map."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.na, self.nb, self.last = nn.BatchNorm2d(8), nn.BatchNorm2d(10), nn.Conv2d(10, 4, 1)
        self.gate, self.head = nn.Linear(10, 10), nn.Linear(4, 4)

    def forward(self, x):
        x = F.silu(self.na(self.a(x)), inplace=True)
        x = torch.cat([x, self.b(x)], 1)
        x = F.hardswish(self.nb(x))
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        first, second = F.interpolate(self.last(x), scale_factor=2).relu().chunk(2, dim=1)
        return self.head(torch.cat([second, first], 1).permute(0, 2, 3, 1))


NETWORKS = {
    "activations": lambda: _chain(
        nn.ReLU(), nn.ReLU(True), nn.ReLU6(), nn.ReLU6(True), nn.LeakyReLU(0.1), nn.LeakyReLU(0.1, True),
        nn.SiLU(), nn.SiLU(True), nn.GELU(), nn.ELU(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(),
        nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.PReLU(6), nn.Identity(), nn.Threshold(0.1, 0.2),
    ),
    "pools": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 6, 1),
        nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(0.4), nn.ZeroPad2d(1), nn.Conv2d(6, 6, 1),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3),
    ),
    "affine=False": lambda: _chain(nn.ReLU(), nn.ReLU(), norm=lambda c: nn.BatchNorm2d(c, affine=False)),
    "no averages": lambda: _chain(nn.ReLU(), norm=lambda c: nn.BatchNorm2d(c, track_running_stats=False)),
    "group norm": lambda: _chain(nn.ReLU(), nn.SiLU(), norm=lambda c: nn.GroupNorm(2, c)),
    "instance norm": lambda: _chain(nn.ReLU(), norm=lambda c: nn.InstanceNorm2d(c, affine=True)),
    "our batch norm": lambda: _chain(nn.ReLU(), nn.SiLU(True), norm=cs.norm.BatchNorm2d),
    "our group norm": lambda: _chain(nn.ReLU(), norm=lambda c: cs.norm.GroupNorm(3, c)),
    "ghost": lambda: _chain(nn.ReLU(), norm=lambda c: cs.norm.GhostBatchNorm2d(c, ghost_batch_size=2)),
    "sums": _Sums,
    "unscaled sums": lambda: _Sums(alpha=1),
    "twice": _Twice,
    "joined": _Joined,
    "residual": cases.ResidualNet,
    "functional": cases.FunctionalNet,
}  # fmt: skip


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_has_the_same_bits(name, layout, residual):
    torch.manual_seed(1)
    net = NETWORKS[name]().to(memory_format=layout)
    x = torch.randn(4, 3, 11, 9).to(memory_format=layout).requires_grad_()
    plain, lean = copy.deepcopy(net), copy.deepcopy(net)
    without = saved_bytes(copy.deepcopy(net), x)
    handle = cs.norm.lean(lean, residual=residual)
    for seed in (3, 4):  # the second step finds moved averages
        expected = step(plain, x, seed=seed)
        assert_same_bits(step(lean, x, seed=seed), expected)
    assert handle.savings.bytes_without == without
    assert handle.savings.bytes_kept < without


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["activations", "unscaled sums", "twice"])
def test_large_maps_are_made_again_in_slices(name, layout, monkeypatch):
    """Slices of one, two and, at the end, one sample of five."""
    torch.manual_seed(1)
    net = NETWORKS[name]().to(memory_format=layout)
    x = torch.randn(5, 3, 11, 9).to(memory_format=layout).requires_grad_()
    plain = step(copy.deepcopy(net), x)
    cs.norm.lean(net)
    monkeypatch.setattr(slices, "_WORTH", 0)
    taken = []
    monkeypatch.setattr(again, "samples_at_a_time", lambda *found: taken.append(samples(*found)) or taken[-1])
    samples = slices.samples_at_a_time
    for most in (1, 2):
        monkeypatch.setattr(slices, "_SLICE", most * 6 * 11 * 9 * 4)
        assert_same_bits(step(copy.deepcopy(net), x), plain)
    assert {1, 2} <= set(taken)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["activations", "sums", "our batch norm"])
def test_so_has_one_in_another_precision(name, dtype):
    torch.manual_seed(1)
    net, x = NETWORKS[name]().to(dtype), torch.randn(4, 3, 11, 9, dtype=dtype)
    plain, lean = copy.deepcopy(net), copy.deepcopy(net)
    handle = cs.norm.lean(lean)
    assert_same_bits(step(lean, x), step(plain, x))
    assert handle.savings.share < 0.8


@pytest.mark.parametrize("name", ["activations", "sums"])
def test_frozen_norms_and_evaluation_have_the_same_bits(name):
    torch.manual_seed(1)
    net, x = NETWORKS[name](), torch.randn(4, 3, 11, 9)
    step(net, x)
    for prepared in (net.eval(), cs.norm.freeze(copy.deepcopy(net).train()) and net):
        plain, lean = copy.deepcopy(prepared), copy.deepcopy(prepared)
        handle = cs.norm.lean(lean)
        assert_same_bits(step(lean, x), step(plain, x))
        assert handle.savings.share < 0.8


def test_autocast_has_the_same_bits():
    torch.manual_seed(1)
    net, x = NETWORKS["sums"](), torch.randn(4, 3, 11, 9)
    plain, lean = copy.deepcopy(net), copy.deepcopy(net)
    handle = cs.norm.lean(lean)
    with torch.autocast("cpu", torch.bfloat16):  # also while it runs backward, as one shouldn't
        assert_same_bits(step(lean, x), step(plain, x))
    assert handle.savings.share < 0.8


def test_what_is_kept_is_what_is_there():
    """Norms keep maps of 6×9×9 for 4 images and their statistics; in place of a ReLU's map, a copy of β."""
    net = _chain(nn.ReLU(), nn.ReLU())
    handle = cs.norm.lean(net)
    x = torch.randn(4, 3, 9, 9)
    net(x)
    image, maps, numbers = x.nbytes, 4 * 6 * 81 * 4, 6 * 4
    rows = {row.path: (row.bytes_without, row.bytes_kept) for row in handle.savings.layers}
    assert rows == {
        "0": (image, image),
        "1": (maps + 2 * numbers, maps + 2 * numbers),
        "2": (maps, numbers),
        "4": (maps + 2 * numbers, maps + 2 * numbers),
        "5": (maps, numbers),
    }
    assert Fraction(handle.savings.share) == Fraction(
        handle.savings.bytes_kept / handle.savings.bytes_without
    )


@pytest.mark.parametrize("reference", zoo.staged(zoo.SAMPLE, zoo.BRIEF))
def test_networks_of_the_zoo_have_the_same_bits(reference):
    net, shape = zoo.make(reference)
    x = torch.randn(shape)
    plain, lean = copy.deepcopy(net), copy.deepcopy(net)
    without = saved_bytes(net, x)
    handle = cs.norm.lean(lean)
    expected = step(plain, x)
    assert not any(tensor is not None and tensor.isnan().any() for tensor in expected)
    assert_same_bits(step(lean, x), expected)
    assert handle.savings.bytes_without == without
    assert handle.savings.share < 0.9

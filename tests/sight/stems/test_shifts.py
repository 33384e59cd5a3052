"""Shifts: exact for whole positions, predicted by the aliased energy for parts of one."""

import math

import pytest
import torch
from torch import nn

from convscope.sight.stems.moving import moved_distance
from convscope.sight.stems.shifts import Watched, shifts_of
from convscope.tape import record


def followed(net, images):
    tape = record(net.eval(), images[:1].repeat(2, 1, 1, 1))
    layers = [
        Watched(call.op, str(call.address), call.output)
        for call in tape.in_phase("forward")
        if len(tape.values[call.output].shape) == 4
    ]
    return shifts_of(net, tape, layers, images)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_shifts_by_whole_positions_are_exact_away_from_the_border(stride):
    net = nn.Sequential(nn.Conv2d(2, 4, 5, stride), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU()).double()
    images = torch.randn(2, 2, 41 + stride, 38 + stride).double()
    with torch.no_grad():
        still, moved = (
            net(images[:, :, first:last, first:last]) for first, last in ((0, 38), (stride, 38 + stride))
        )
    error, size = moved_distance(still, moved, (1.0, 1.0))
    assert size.min() > 0
    assert (error / size).sqrt().max() < 1e-6


def test_networks_without_strides_follow_exactly_but_at_the_border():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    found = followed(net.double(), torch.randn(3, 3, 22, 17).double())
    assert [layer.distance for layer in found.layers] == pytest.approx([0] * 4, abs=1e-7)
    assert all(layer.change > 0.5 and not layer.sees_border for layer in found.layers)
    assert found.top1_pixel is found.top1_crops is None


@pytest.mark.parametrize(("frequency", "by"), [(0.05, 0.25), (0.11, 0.5), (0.2, 1 / 3)])
def test_a_wave_that_the_map_can_carry_is_moved_exactly_by_parts_of_a_position(frequency, by):
    places = torch.arange(64, dtype=torch.float64)
    still, moved = (
        torch.cos(2 * math.pi * frequency * (places + shift) + 1.0).expand(1, 1, 48, 64) for shift in (0, by)
    )
    error, size = moved_distance(still, moved, (0.0, by))
    assert float((error / size).sqrt()) < 0.01
    wrong, _ = moved_distance(still, moved, (0.0, -by))
    assert float((wrong / size).sqrt()) == pytest.approx(2 * math.sin(2 * math.pi * frequency * by), rel=0.05)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_folded_wave_is_off_by_the_phase_of_its_alias(stride):
    """f folds to f − 1/s: a move by a pixel turns it by 2πf, where 2π(f − 1/s) is expected."""
    net = nn.Conv2d(1, 1, 1, stride, bias=False).double()
    nn.init.ones_(net.weight)
    for frequency, folds in ((0.3 / stride, False), (0.7 / stride, True)):
        wave = torch.cos(2 * math.pi * frequency * torch.arange(160, dtype=torch.float64))
        images = wave.expand(1, 1, 120, 160)
        with torch.no_grad():
            still, moved = net(images[..., :-1]), net(images[..., 1:])
        error, size = moved_distance(still, moved, (0.0, 1 / stride))
        expected = abs(1 - complex(math.cos(2 * math.pi / stride), math.sin(2 * math.pi / stride))) * folds
        assert float((error / size).sqrt()) == pytest.approx(expected, abs=0.02)


def blurring(taps):
    """Three times: every second value of a map, blurred before or not."""
    layers = [nn.Conv2d(1, 1, len(taps), 2, bias=False) for _ in range(3)]
    row = torch.tensor(taps) / sum(taps)
    for layer in layers:
        nn.init.zeros_(layer.weight)
        layer.weight.data += torch.outer(row, row)
    return nn.Sequential(*layers).double()


def test_deep_maps_without_aliases_move_by_parts_of_a_position():
    images = torch.randn(4, 1, 200, 180).double()
    smooth = followed(blurring([1.0, 8, 28, 56, 70, 56, 28, 8, 1]), images).layers
    harsh = followed(blurring([1.0]), images).layers
    assert [layer.stride for layer in smooth] == [(2, 2), (4, 4), (8, 8)]
    assert all(layer.distance < 0.25 * layer.change for layer in smooth)
    assert all(layer.distance > 1 for layer in harsh)


def test_borders_are_told():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 9, 2, 4), nn.AdaptiveAvgPool2d(6))
    found = followed(net, torch.randn(2, 1, 32, 32))
    assert [layer.sees_border for layer in found.layers] == [False, True, True]
    assert [layer.stride for layer in found.layers[:2]] == [(2, 2), (4, 4)]


def test_maps_too_small_and_maps_without_energy_have_no_distance():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.ReLU())
    with torch.no_grad():
        net[0].weight.zero_()
    small = followed(net, torch.randn(2, 1, 16, 16))
    assert [layer.distance for layer in small.layers] == [None, None]
    silent = followed(net, torch.randn(2, 1, 40, 40))
    assert [layer.distance for layer in silent.layers] == [None, None]


class Parity(nn.Module):
    """Scores which say whether the brightest pixel's row is even: every shift by one pixel changes them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        row = x.flatten(1).argmax(1) // x.shape[-1]
        return torch.stack([row % 2, 1 - row % 2], 1).float() + 0 * self.first(x).mean((1, 2, 3))[:, None]


def test_scores_are_compared_between_windows():
    images = torch.zeros(40, 1, 28, 28)
    images[:, :, 14, 14] = 1
    net = Parity()
    tape = record(nn.Conv2d(1, 1, 1), (2, 1, 28, 28))
    found = shifts_of(net, tape, [], images)
    assert found.top1_pixel == 0
    assert 0.25 < found.top1_crops < 0.75  # half of the pairs of rows have the same parity
    assert (found.furthest, found.num_images) == (4, 40)
    steady = shifts_of(
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(1, 3)), tape, [], images
    )
    assert steady.top1_pixel == steady.top1_crops == 1

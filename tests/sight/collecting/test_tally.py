"""A layer's tally against loops over all its maps, however they are divided."""

import math
import random

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.tally import Tally
from sight.collecting.brute import bits, entries, statistics, strongest

EXACT = ("minimum", "maximum", "num_active_images", "num_active_positions")


PROFILED = [2, 3, 11, 29, 69]


def tally_of(maps, top, batch_size, batches=None):
    """The tally of some batches, in ascending order; of all without ``batches``."""
    tally = Tally.empty(maps.shape[1], top, profiled=PROFILED)
    for number in range(-(-len(maps) // batch_size)) if batches is None else sorted(batches):
        start = number * batch_size
        chunk = maps[start : start + batch_size]
        tally.add(chunk, list(range(start, start + len(chunk))), number)
    return tally


def number_of(tally, name, unit):
    owner = tally if hasattr(tally, name) else tally.statistics
    return getattr(owner, name)[unit].item()


def agrees(tally, maps, top, relative):
    assert entries(tally) == strongest(maps, top)
    for unit, expected in enumerate(statistics(maps)):
        for name in EXACT:
            assert number_of(tally, name, unit) == expected[name]
        scale = max(abs(expected["minimum"]), abs(expected["maximum"]))
        for name in ("mean", "std"):
            assert number_of(tally, name, unit) == pytest.approx(expected[name], abs=relative * scale)
    positions = maps.shape[0] * maps.shape[2] * maps.shape[3]
    assert torch.equal(tally.active_positions * positions, tally.statistics.num_active_positions.double())
    assert tally.num_images == maps.shape[0]
    for column, image in enumerate(PROFILED):
        for unit in range(maps.shape[1]):
            value = tally.profile.peaks[unit, column].item()
            expected = max(maps[image, unit].float().flatten().tolist()) if image < len(maps) else None
            assert math.isnan(value) if expected is None else value == expected


@pytest.mark.parametrize("batch_size", [1, 4, 7, 30])
@pytest.mark.parametrize("size", [(4, 6), (1, 1), (1, 5)])
def test_equals_loops_over_stored_maps(batch_size, size):
    maps = torch.randn(30, 5, *size, dtype=torch.float64)
    agrees(tally_of(maps, 9, batch_size), maps, 9, 1e-14)


@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float32, 1e-7), (torch.float16, 1e-7), (torch.bfloat16, 1e-7)]
)
def test_other_precisions_are_added_up_in_float32_at_least(dtype, relative):
    maps = (3 + torch.randn(12, 3, 40, 33)).to(dtype)
    agrees(tally_of(maps, 5, 5), maps, 5, 20 * relative)
    assert float(tally_of(maps, 5, 5).mean[0]) == pytest.approx(float(maps[:, 0].double().mean()), rel=1e-6)


def test_half_precision_sums_beyond_its_range():
    maps = torch.full((2, 1, 64, 64), 60_000.0, dtype=torch.float16)
    tally = tally_of(maps, 2, 2)
    assert float(tally.mean[0]) == float(maps[0, 0, 0, 0])
    assert float(tally.statistics._means()[1, 0]) == pytest.approx(float(maps[0, 0, 0, 0]) ** 2, rel=1e-6)


def test_large_maps_are_taken_in_pieces():
    maps = torch.randn(5, 2, 400, 401)  # more than one piece holds
    agrees(tally_of(maps, 3, 5), maps, 3, 1e-6)


@pytest.mark.parametrize("layout", ["channels last", "a part of a larger tensor", "turned"])
def test_every_memory_format(layout):
    maps = torch.randn(9, 4, 5, 7)
    tensor = {
        "channels last": maps.contiguous(memory_format=torch.channels_last),
        "a part of a larger tensor": torch.cat((maps, maps), 1)[:, :4],
        "turned": maps.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }[layout]
    agrees(tally_of(tensor, 4, 4), maps, 4, 1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_ties_go_to_the_earlier_image_and_the_first_place(batch_size):
    maps = torch.randint(0, 3, (20, 4, 3, 5)).double()
    agrees(tally_of(maps, 6, batch_size), maps, 6, 1e-14)


def test_duplicates_across_batches_and_parts():
    maps = torch.randint(0, 2, (4, 3, 2, 3)).double().repeat(6, 1, 1, 1)
    one = tally_of(maps, 7, 5)
    agrees(one, maps, 7, 1e-14)
    later, earlier = tally_of(maps, 7, 5, [2, 3, 4]), tally_of(maps, 7, 5, [0, 1])
    later.merge(earlier)
    assert bits(later) == bits(one)


@pytest.mark.parametrize("kind", ["noise", "ties", "zeros of both signs"])
def test_any_division_merged_in_any_order_is_the_same_to_the_last_bit(kind):
    maps = {
        "noise": lambda: torch.randn(70, 6, 3, 4, dtype=torch.float64),
        "ties": lambda: torch.randint(-1, 2, (70, 6, 3, 4)).float(),
        "zeros of both signs": lambda: torch.zeros(70, 6, 3, 4) * torch.randn(70, 6, 3, 4).sign(),
    }[kind]()
    expected = bits(tally_of(maps, 9, 3))
    for seed in range(20):
        chance = random.Random(seed)
        numbers = list(range(24))
        chance.shuffle(numbers)
        edges = sorted(chance.sample(range(25), chance.randint(1, 5)))
        parts = [
            tally_of(maps, 9, 3, numbers[start:stop])
            for start, stop in zip([0, *edges], [*edges, len(numbers)])
        ]
        while len(parts) > 1:  # in any grouping, too
            first = parts.pop(chance.randrange(len(parts)))
            parts[chance.randrange(len(parts))].merge(first)
        assert bits(parts[0]) == expected


def test_a_sum_from_left_to_right_would_depend_on_the_division():
    """The test above can fail: with the same numbers added as they come, it does."""
    maps = torch.randn(70, 6, 3, 4, dtype=torch.float64)
    sums = [maps[start : start + 3].double().sum((0, 2, 3)) for start in range(0, 70, 3)]
    whole = torch.stack(sums).cumsum(0)[-1]
    halves = torch.stack(sums[:10]).cumsum(0)[-1] + torch.stack(sums[10:]).cumsum(0)[-1]
    assert not torch.equal(whole, halves)


def test_units_that_never_fire_are_listed_by_image():
    maps = torch.zeros(6, 2, 3, 3)
    maps[:, 1] = -1
    maps[4, 1, 2, 1] = 2
    tally = tally_of(maps, 3, 2)
    assert tally.dead.tolist() == [True, False]
    assert tally.images.tolist() == [[0, 1, 2], [4, 0, 1]]
    assert tally.places.tolist() == [[0, 0, 0], [7, 0, 0]]


def test_minus_infinity_everywhere_is_no_entry():
    maps = torch.full((4, 2, 2, 2), -torch.inf)
    maps[2, 1, 0, 1] = -5
    tally = tally_of(maps, 3, 2)
    assert tally.images.tolist() == [[-1, -1, -1], [2, -1, -1]]
    assert tally.dead.tolist() == [True, True]
    assert tally.values[1].tolist() == [-5, -torch.inf, -torch.inf]


def test_infinity_is_the_largest():
    maps = torch.zeros(4, 1, 2, 2)
    maps[2, 0, 1, 0] = torch.inf
    tally = tally_of(maps, 2, 2)
    assert tally.images.tolist() == [[2, 0]]
    assert tally.places.tolist() == [[2, 0]]


def test_fewer_images_than_places():
    tally = Tally.empty(2, 4)
    tally.add(torch.tensor([[[[1.0]], [[-2.0]]], [[[2.0]], [[-1.0]]]]), [0, 1])
    assert tally.images.tolist() == [[1, 0, -1, -1], [1, 0, -1, -1]]
    assert tally.dead.tolist() == [False, True]


def test_dead_near_dead_and_always_on():
    maps = torch.full((200, 4, 2, 2), -1.0)
    maps[7, 1, 0, 0] = 1  # in 1 of 200 images
    maps[:2, 2, 1, 1] = 1  # in 2 of 200: 1 %, not less
    maps[:, 3] = 0.5
    tally = tally_of(maps, 3, 32)
    assert tally.dead.tolist() == [True, False, False, False]
    assert tally.near_dead().tolist() == [False, True, False, False]
    assert tally.near_dead(0.02).tolist() == [False, True, True, False]
    assert tally.always_on.tolist() == [False, False, False, True]
    assert tally.active_images.tolist() == [0, 0.005, 0.01, 1]
    assert tally.active_positions.tolist() == [0, 1 / 800, 2 / 800, 1]
    assert not Tally.empty(3, 2).always_on.any()


def test_batches_may_be_missing():
    maps = torch.randn(9, 2, 3, 3, dtype=torch.float64)
    tally = Tally.empty(2, 3)
    tally.add(maps[:3], [0, 1, 2], 0)
    tally.skip(1)
    tally.add(maps[6:], [6, 7, 8], 2)
    seen = torch.cat((maps[:3], maps[6:]))
    assert tally.num_images == 6
    assert tally.mean.tolist() == pytest.approx(seen.mean((0, 2, 3)).tolist(), rel=1e-13)
    assert sorted(tally.statistics.sums.nodes) == [(0, 2), (1, 0)]


def test_without_statistics_the_lists_are_the_same():
    maps = torch.randn(20, 3, 4, 4)
    bare, full = Tally.empty(3, 5, statistics=False), Tally.empty(3, 5)
    for tally in (bare, full):
        for start in range(0, 20, 6):
            tally.add(maps[start : start + 6], list(range(start, min(start + 6, 20))))
    assert entries(bare) == entries(full) == strongest(maps, 5)
    assert torch.equal(bare.active_images, full.active_images)
    assert bare.statistics is None


def test_activations_that_are_not_numbers_are_no_dead_units():
    maps = torch.tensor([[[[1.0]], [[float("nan")]]], [[[2.0]], [[-1.0]]]])
    with pytest.raises(ConvscopeError, match=r"unit 1 .* NaN in image 5"):
        Tally.empty(2, 4).add(maps, [5, 6])


@pytest.mark.parametrize("statistics", [True, False])
def test_a_single_nan_in_the_middle_of_a_large_map_is_found(statistics):
    maps = torch.randn(3, 8, 57, 61)
    maps[1, 5, 31, 17] = torch.nan
    with pytest.raises(ConvscopeError, match=r"unit 5 .* NaN in image 11"):
        Tally.empty(8, 4, statistics=statistics).add(maps, [10, 11, 12])


def test_maps_of_another_size_are_refused():
    tally = Tally.empty(1, 2)
    tally.add(torch.zeros(1, 1, 3, 4), [0])
    with pytest.raises(ConvscopeError, match=r"image 1, whose maps are 4×3 where .* 3×4"):
        tally.add(torch.zeros(1, 1, 4, 3), [1])

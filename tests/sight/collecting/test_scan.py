"""Scans of networks against loops over stored maps, and of the same images in every division."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.fingerprint import fingerprint
from convscope.sight.collecting.passing import pass_over
from convscope.sight.collecting.processes import Processes
from convscope.sight.collecting.progress import Progress
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.collecting.reading import numbered, share_of
from convscope.sight.collecting.scan import ScanOptions, scan
from convscope.sight.images import ImageSource
from convscope.sight.units.maps import units_of
from convscope.tape import record
from sight.collecting.brute import bits, entries, statistics, strongest
from sight.collecting.scanning import network, pixels, scanned


def all_bits(found):
    return {address: bits(tally) for address, tally in found.tallies.items()}


def test_a_network_is_scanned_in_evaluation_mode():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.9), nn.Conv2d(4, 2, 3)
    ).double()
    net.train()
    images = torch.randn(11, 3, 9, 8, dtype=torch.float64)
    units, _ = units_of(record(net, images[:2]))
    before = fingerprint(net)
    found = scan(net, ImageSource(images, batch_size=4), units, 3)
    assert fingerprint(net) == before
    assert found.num_images == 11
    net.eval()
    for tally, stop in zip(found.tallies.values(), (3, 5)):
        with torch.no_grad():
            maps = net[:stop](images)
        for unit, other in zip(entries(tally), strongest(maps, 3)):
            assert [entry[1:] for entry in unit] == [entry[1:] for entry in other]
            assert [entry[0] for entry in unit] == pytest.approx([entry[0] for entry in other], rel=1e-12)
        for unit, expected in enumerate(statistics(maps)):
            assert float(tally.mean[unit]) == pytest.approx(expected["mean"], abs=1e-14)
            assert float(tally.std[unit]) == pytest.approx(expected["std"], abs=1e-12)
            assert float(tally.minimum[unit]) == pytest.approx(expected["minimum"], abs=1e-14)
            assert int(tally.num_active_images[unit]) == expected["num_active_images"]


def test_what_runs_in_place_later_does_not_matter():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        def forward(self, x):
            x = self.conv(x).relu()
            x += 100
            return x.mul_(-1)

    net, images = InPlace().double(), torch.randn(7, 1, 6, 5, dtype=torch.float64)
    units, _ = units_of(record(net, images[:2]))
    (tally,) = scan(net, ImageSource(images, batch_size=7), units, 2).tallies.values()
    with torch.no_grad():
        assert entries(tally) == strongest(net.conv(images).relu(), 2)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_modes_of_the_caller(inference, autocast):
    expected = all_bits(scanned()) if not autocast else None
    with torch.inference_mode(inference), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = scanned()
    if not autocast:
        assert all_bits(found) == expected
    assert all(tally.num_images == 83 for tally in found.tallies.values())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_any_number_of_shares_is_the_same_to_the_last_bit(count):
    model, source = network(), ImageSource(pixels(), batch_size=4)
    units, _ = units_of(record(model, (2, 3, 19, 16)))
    done = Ranges.of([(3, 5), (9, 10)])  # by an earlier run
    parts = []
    for share in (done, *(share_of(source, done, Processes(rank, count)) for rank in range(count))):
        part = Progress.empty(units, 5, statistics=True, profiled=range(83))
        pass_over(model, source, share, part, lambda: None)
        parts.append(pickle.loads(pickle.dumps(part)))
    whole = Progress.empty(units, 5, statistics=True, profiled=range(83))
    for part in reversed(parts):
        whole.merge(part)
    assert whole.num_images == 83
    assert {address: bits(tally) for address, tally in whole.tallies.items()} == all_bits(scanned())


class Damaged:
    """Images of which some can't be read: one, and a whole batch of four."""

    bad = (2, 12, 13, 14, 15, 33)

    def __init__(self, images, bad=bad):
        self.images, self.bad = images, bad

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError("truncated")
        return self.images[index]


def test_damaged_images_are_named_and_leave_the_others_their_numbers():
    images = pixels(34)
    found = scanned(ImageSource(Damaged(images), batch_size=4))
    assert (found.num_images, len(found.damaged)) == (28, 6)
    kept = [index for index in range(34) if index not in Damaged.bad]
    with torch.no_grad():
        maps = network()(images)
    tally = found.tallies["4#1:convolution.1"]
    expected = strongest(maps[kept], 5)
    assert [[e[1] for e in unit] for unit in entries(tally)] == [
        [kept[e[1]] for e in unit] for unit in expected
    ]
    assert float(tally.mean[0]) == pytest.approx(float(maps[kept, 0].double().mean()), abs=1e-7)


def test_a_wholly_damaged_batch_still_has_its_number():
    source = ImageSource(Damaged(pixels(34)), batch_size=4)
    found = [(number, indices) for number, indices, _ in numbered(source, Ranges.of([(2, 5), (8, 9)]))]
    assert found == [(2, [8, 9, 10, 11]), (3, []), (4, [16, 17, 18, 19]), (8, [32])]
    last = ImageSource(Damaged(pixels(6), bad=(4, 5)), batch_size=4)
    assert [(number, indices) for number, indices, _ in numbered(last, Ranges.of([(1, 2)]))] == [(1, [])]


def test_a_set_of_which_nothing_can_be_read_is_refused():
    units, _ = units_of(record(network(), (2, 3, 19, 16)))
    source = ImageSource(Damaged(pixels(3), bad=(0, 1, 2)), batch_size=2)
    with pytest.raises(ConvscopeError, match=r"none of 3 can be read"):
        scan(network(), source, units, 2)
    with pytest.raises(ConvscopeError, match="no images"):
        scan(network(), ImageSource(torch.zeros(0, 3, 19, 16)), units, 2)


def test_a_loader_is_the_same_as_its_images():
    assert all_bits(scanned(list(pixels().split(4)))) == all_bits(scanned())


def test_progress_is_told_up_to_the_end():
    told = []
    scanned(progress=lambda done, total: told.append((done, total)))
    assert told == [(min(4 * batch, 83), 83) for batch in range(1, 22)]
    told.clear()
    scanned(list(pixels(8).split(4)), progress=lambda done, total: told.append((done, total)))
    assert told == [(4, None), (8, None)]


def test_statistics_can_be_left_out():
    bare, full = scanned(statistics=False), scanned()
    for address, tally in bare.tallies.items():
        assert tally.statistics is None
        assert bits(replace(full.tallies[address], statistics=None)) == bits(tally)


def test_images_that_the_network_does_not_take_are_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    units, _ = units_of(record(net, (2, 3, 9, 9)))
    with pytest.raises(ConvscopeError, match=r"images 0 to 1 .*\(1, 9, 9\) fail in 0#1"):
        scan(net, ImageSource(torch.zeros(2, 1, 9, 9)), units, 3, ScanOptions())


def test_images_of_another_size_are_named():
    sizes = [pixels(4), pixels(4)[..., :15]]
    with pytest.raises(ConvscopeError, match=r"image 4, whose maps are 17×13 where .* 17×14"):
        scanned(sizes)

"""The scan against brute force over stored maps."""

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight.images import ImageSource
from convscope.sight.scan import Tally, scan
from convscope.sight.units import units_of
from convscope.tape import record


def brute_force(maps, top):
    """Per unit: (value, image, y, x) of its strongest images, from all maps at once, by sorting tuples."""
    result = []
    for unit in range(maps.shape[1]):
        entries = []
        for image in range(maps.shape[0]):
            value = maps[image, unit].max()
            y, x = (maps[image, unit] == value).nonzero()[0].tolist()
            entries.append((-float(value), image, y, x))
        result.append([(-value, image, y, x) for value, image, y, x in sorted(entries)[:top]])
    return result


def entries(tally):
    return [
        [(v, i, *divmod(p, tally.width)) for v, i, p in zip(*row)]
        for row in zip(tally.values.tolist(), tally.images.tolist(), tally.places.tolist())
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 30])
def test_equals_brute_force_over_stored_maps(batch_size):
    maps = torch.randn(30, 5, 4, 6, dtype=torch.float64)
    tally = Tally.empty(5, 9)
    for start in range(0, 30, batch_size):
        chunk = maps[start : start + batch_size]
        tally.add(chunk, list(range(start, start + len(chunk))))
    assert entries(tally) == brute_force(maps, 9)
    torch.testing.assert_close(tally.mean, maps.mean((0, 2, 3)), rtol=1e-12, atol=1e-15)
    assert torch.equal(tally.maximum, maps.amax((0, 2, 3)))
    assert torch.equal(tally.minimum, maps.amin((0, 2, 3)))
    assert tally.active.tolist() == (maps.amax((2, 3)) > 0).sum(0).tolist()
    assert (tally.num_images, tally.num_values) == (30, 30 * 24)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_ties_go_to_the_earlier_image_and_the_first_place(batch_size):
    maps = torch.randint(0, 3, (20, 4, 3, 5)).double()
    tally = Tally.empty(4, 6)
    for start in range(0, 20, batch_size):
        chunk = maps[start : start + batch_size]
        tally.add(chunk, list(range(start, start + len(chunk))))
    assert entries(tally) == brute_force(maps, 6)


def test_fewer_images_than_places():
    tally = Tally.empty(2, 4)
    tally.add(torch.tensor([[[[1.0]], [[-2.0]]], [[[2.0]], [[-1.0]]]]), [0, 1])
    assert tally.images.tolist() == [[1, 0, -1, -1], [1, 0, -1, -1]]
    assert tally.dead.tolist() == [False, True]


def test_activations_that_are_not_numbers_are_no_dead_units():
    maps = torch.tensor([[[[1.0]], [[float("nan")]]], [[[2.0]], [[-1.0]]]])
    with pytest.raises(ConvscopeError, match=r"unit 1 .* NaN in image 5"):
        Tally.empty(2, 4).add(maps, [5, 6])


def test_a_network_is_scanned_in_evaluation_mode():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.9), nn.Conv2d(4, 2, 3)
    ).double()
    net.train()
    images = torch.randn(11, 3, 9, 8, dtype=torch.float64)
    units, _ = units_of(record(net, images[:2]))
    tallies = scan(net, ImageSource(images, batch_size=4), units, 3)
    with torch.no_grad():
        net.eval()
        for tally, stop in zip(tallies.values(), (3, 5)):
            found, expected = entries(tally), brute_force(net[:stop](images), 3)
            for unit, other in zip(found, expected):
                assert [entry[1:] for entry in unit] == [entry[1:] for entry in other]
                assert [entry[0] for entry in unit] == pytest.approx([entry[0] for entry in other], rel=1e-12)


def test_images_that_the_network_does_not_take_are_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    units, _ = units_of(record(net, (2, 3, 9, 9)))
    with pytest.raises(ConvscopeError, match=r"images 0 to 1 .*\(1, 9, 9\) fail in 0#1"):
        scan(net, ImageSource(torch.zeros(2, 1, 9, 9)), units, 3)

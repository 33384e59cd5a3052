"""Against planted networks whose answer is known, loops in float64, and figures worked out by hand."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import Box, ImageSource, Masking, correspondence
from convscope.sight.corresponding.features import differing_signs
from convscope.sight.corresponding.jackknife import over_pairs
from convscope.sight.corresponding.marks import random_patches
from convscope.sight.corresponding.signs import compare_signs


class Planted(nn.Module):
    """Features = code · (sum of channel 0) + random mixture of the pixels of channel 1.

    The part is painted in channel 0 alone: masking it moves every feature by ``code``, with one sign in all
    images. What is masked elsewhere moves them by a random mixture of noise.
    """

    def __init__(self, size, features=400):
        super().__init__()
        self.code = nn.Parameter(torch.randn(features))
        self.mixture = nn.Parameter(torch.randn(features, size[0] * size[1]))

    def forward(self, x):
        return x[:, 0].sum((1, 2))[:, None] * self.code + x[:, 1].flatten(1) @ self.mixture.t()


def planted(num_images, size=(19, 26), box=(4, 5)):
    images, marks = torch.zeros(num_images, 2, *size, dtype=torch.float64), []
    images[:, 1] = torch.randn(num_images, *size, dtype=torch.float64)
    for image in images:
        top, left = np.random.randint(size[0] - box[0]), np.random.randint(size[1] - box[1])
        image[0, top : top + box[0], left : left + box[1]] = 1
        image[1, top : top + box[0], left : left + box[1]] = 0
        marks.append((top, left, top + box[0], left + box[1]))
    return Planted(size).double(), images, marks


def test_a_planted_part_is_consistent_and_noise_isnt():
    net, images, marks = planted(7)
    found = correspondence(net, images, {"part": marks}, "self", Masking(draws=6))
    (row,) = found.layers[0].parts
    assert row.here.delta.value == 0.0
    assert row.here.agreement.value == row.here.agreement.low == 1.0
    assert row.here.opposed == 0.0
    # 42 draws of a pair's patches; overlaps with the part pull Δ below that of independent signs.
    assert 0.4 < row.random.delta.value < 0.51
    assert row.random.chance == pytest.approx(0.5, abs=0.01)
    assert row.verdict == found.layers[0].verdict == "consistent"
    assert row.difference.low > 0.35
    assert row.here.num_pairs == 21
    assert found.num_images == 7


def test_independent_signs_have_a_distance_of_a_half():
    """Masks over noise alone: Δ = 0.5 within what √(1 / (4 · features)) allows, and κ = 0."""
    net, images, _ = planted(6)
    images[:, 0] = 0
    marks = [(0, 3 * i, 4, 3 * i + 5) for i in range(6)]
    (row,) = correspondence(net, images, {"p": marks}, "self", Masking(draws=4)).layers[0].parts
    assert row.here.delta.value == pytest.approx(0.5, abs=0.03)
    assert row.here.opposed == pytest.approx(0.5, abs=0.03)
    assert abs(row.here.agreement.value) < 0.06
    assert row.verdict == "undecided"


def loops_delta(features, masked, tolerance=0.0):
    """Δ, pair by pair and element by element."""
    signs = [
        [0 if abs(a - b) <= tolerance else (1 if a > b else -1) for a, b in zip(x.tolist(), m.tolist())]
        for x, m in zip(features, masked)
    ]
    shares, opposed = [], []
    for one, other in itertools.combinations(signs, 2):
        shares.append(sum(a != b for a, b in zip(one, other)) / len(one))
        both = [(a, b) for a, b in zip(one, other) if a and b]
        opposed.append(sum(a != b for a, b in both) / len(both) if both else np.nan)
    return shares, np.nanmean(opposed)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_every_number_is_the_loops_one(batch_size):
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 2 * 3, 6),
    ).double().train()  # fmt: skip
    images = torch.randn(5, 3, 13, 17, dtype=torch.float64)
    marks = [(0, 0, 6, 4), (3, 9, 8, 17), None, (12, 0, 13, 17), Box(1, 2, 5, 9)]
    masking = Masking(fill=(0.5, -1.0, 2.0), draws=3, seed=5)
    source = ImageSource(images, batch_size=batch_size)
    found = correspondence(net, source, {"p": marks}, ["0", "4", "3", "7", "1"], masking)
    net.eval()
    ends = {"0": 3, "4": 6, "3": 4, "7": 8, "1": 2}  # an in-place ReLU follows "1"
    boxes = tuple(mark and (mark if isinstance(mark, Box) else Box(*mark)) for mark in marks)

    def expected(layer, boxes):
        rows = [index for index, box in enumerate(boxes) if box is not None]
        masked = images.clone()
        for row in rows:
            box = boxes[row]
            for y, x, c in itertools.product(
                range(box.top, box.bottom), range(box.left, box.right), range(3)
            ):
                masked[row, c, y, x] = (0.5, -1.0, 2.0)[c]
        with torch.no_grad():
            part = net[: ends[layer]]
            features, hidden = part(images[rows]).flatten(1), part(masked[rows]).flatten(1)
        return loops_delta(features, hidden, 1e-13)

    for layer in found.layers:
        (row,) = layer.parts
        shares, opposed = expected(layer.name, boxes)
        assert row.here.delta.value == pytest.approx(np.mean(shares), abs=1e-12)
        assert row.here.pair_spread == pytest.approx(np.std(shares, ddof=1), abs=1e-12)
        assert row.here.opposed == pytest.approx(opposed, abs=1e-12)
        patches = [random_patches(boxes, (13, 17), masking, draw) for draw in range(3)]
        draws = [expected(layer.name, each)[0] for each in patches]
        assert row.random.delta.value == pytest.approx(np.mean(draws), abs=1e-12)
        assert row.random.draw_spread == pytest.approx(np.std(np.mean(draws, 1), ddof=1), abs=1e-12)
        assert row.difference.value == pytest.approx(np.mean(draws) - np.mean(shares), abs=1e-12)
        paired = dict(zip(itertools.combinations(range(4), 2), np.mean(draws, 0) - shares))
        without = [np.mean([v for pair, v in paired.items() if i not in pair]) for i in range(4)]
        error = np.sqrt(3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2))
        assert row.difference.standard_error == pytest.approx(error, abs=1e-12)
    assert [layer.shape for layer in found.layers] == [(4, 6, 8), (5, 2, 3), (4, 3, 4), (6,), (4, 6, 8)]


def test_three_valued_signs_by_hand():
    signs = torch.tensor([[1, 0, -1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [-1, 0, 1, 0, -1]])
    pairs = compare_signs(signs.to(torch.int8))
    assert float(pairs.distance[0, 1]) == pytest.approx(3 / 5)
    assert float(pairs.distance[0, 3]) == pytest.approx(3 / 5)
    assert float(pairs.opposed[0, 1]) == pytest.approx(1 / 2)
    assert float(pairs.opposed[0, 3]) == 1.0
    # Shares of −1, 0, 1: image 0 has 1/5, 2/5, 2/5; image 1 has 0, 2/5, 3/5.
    assert float(pairs.chance[0, 1]) == pytest.approx(1 - (0 + 4 / 25 + 6 / 25))
    assert float(pairs.agreement[0, 1]) == pytest.approx(1 - 0.6 / 0.6)
    # An image that doesn't change is compared with none.
    assert pairs.distance[2].isnan().all()
    assert pairs.distance[:, 2].isnan().all()
    assert pairs.distance.diagonal().isnan().all()
    torch.testing.assert_close(pairs.changed, torch.tensor([3, 3, 0, 3], dtype=torch.float64) / 5)


def test_signs_of_many_columns_are_counted_exactly():
    signs = torch.randint(-1, 2, (3, (1 << 20) + 7), dtype=torch.int8)
    pairs = compare_signs(signs)
    for i, j in itertools.combinations(range(3), 2):
        assert float(pairs.distance[i, j]) == pytest.approx(
            float((signs[i] != signs[j]).double().mean()), abs=1e-15
        )


def test_the_jackknife_covers_the_truth_with_few_images():
    """A kernel with a known mean, a part of each image and a part of each pair: 95 % intervals hold it."""
    generator = np.random.default_rng(0)
    for num_images in (5, 12):
        held = 0
        for _ in range(400):
            own = generator.normal(size=num_images)
            noise = np.triu(generator.normal(size=(num_images, num_images)), 1)
            values = 0.3 + own[:, None] + own[None] + noise + noise.T
            np.fill_diagonal(values, np.nan)
            estimate = over_pairs(torch.from_numpy(values))
            held += estimate.low <= 0.3 <= estimate.high
        assert 0.92 <= held / 400 <= 0.995


@pytest.mark.slow
def test_verdicts_without_any_correspondence_are_rarely_decided():
    """Boxes at random places of noise: the truth is a difference of 0."""
    decided = 0
    for seed in range(60):
        torch.manual_seed(seed)
        np.random.seed(seed)
        net, images, marks = planted(6)
        images[:, 0], images[:, 1] = 0, torch.randn(6, 19, 26)
        found = correspondence(net, images, {"p": marks}, "self", Masking(draws=4, seed=seed))
        assert found.layers[0].verdict != "not measured"
        decided += found.layers[0].verdict != "undecided"
    assert decided <= 8  # 5 % of 60 are 3; the chance of more than 8 is below 1 %


def test_images_that_a_mask_leaves_unchanged_arent_compared():
    net, images, marks = planted(5)
    top, left, bottom, right = marks[2]
    images[2, :, top:bottom, left:right] = 0
    found = correspondence(net, images, {"p": marks}, "self", Masking(draws=3))
    (row,) = found.layers[0].parts
    assert (row.unchanged, row.num_images, row.here.num_pairs) == ((2,), 4, 6)
    assert row.here.delta.value == 0.0
    assert "mask-without-effect" in {finding.fault for finding in found.findings}
    images[:] = 0
    found = correspondence(net, images, {"p": marks}, "self", Masking(draws=3))
    (row,) = found.layers[0].parts
    assert (row.here, row.difference, row.verdict) == (None, None, "not measured")
    assert row.unchanged == (0, 1, 2, 3, 4)
    assert "0 images" in row.reason
    assert json.loads(found.to_json())["layers"][0]["difference"] is None
    assert str(found)


def test_elements_that_a_mask_cant_reach_dont_change():
    """A deep float32 network: nothing outside the mask's reach gets a sign from rounding."""
    net = nn.Sequential(*[each for _ in range(4) for each in (nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())])
    images = torch.randn(4, 3, 40, 40)
    found = correspondence(net, images, {"p": [(0, 0, 1, 1)] * 4}, ["6"], Masking(draws=1))
    assert 0 < found.layers[0].parts[0].here.changed <= 25 / 1600  # 4 layers of 3 × 3 reach 5 × 5 pixels


def test_differences_of_the_size_of_rounding_are_none():
    clean = torch.tensor([[8.0, 1.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    hidden = clean + torch.tensor([[0.0, 1e-6, -1e-4, 1e-4], [0.0, 1e-12, 0.0, -1e-12]])
    assert differing_signs(clean, hidden).tolist() == [[0, 0, 1, -1], [0, -1, 0, 1]]
    assert differing_signs(clean.double(), (clean.double() + 1e-9)).tolist() == [[-1] * 4] * 2


def test_random_patches_keep_sizes_and_reach_every_place():
    boxes = (Box(0, 0, 3, 4), None, Box(5, 2, 7, 9))
    seen = set()
    for draw in range(400):
        patches = random_patches(boxes, (8, 9), Masking(), draw)
        assert patches[1] is None
        assert [(p.height, p.width) for p in (patches[0], patches[2])] == [(3, 4), (2, 7)]
        assert all(p.top >= 0 and p.left >= 0 and p.bottom <= 8 and p.right <= 9 for p in patches if p)
        seen.add((patches[0].top, patches[0].left))
    assert len(seen) == 6 * 6
    assert random_patches(boxes, (8, 9), Masking(), 3) == random_patches(boxes, (8, 9), Masking(), 3)
    assert random_patches(boxes, (8, 9), Masking(seed=1), 3) != random_patches(boxes, (8, 9), Masking(), 3)
    together = {random_patches(boxes, (10, 9), Masking(placement="together"), draw) for draw in range(99)}
    assert {(p[2].top - p[0].top, p[2].left - p[0].left) for p in together} == {(5, 2)}
    assert {p[0].top for p in together} == {0, 1, 2, 3}


def test_parts_in_one_place_are_remarked_and_compared_when_moved_together():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    images = torch.randn(8, 3, 20, 20)
    marks = {"p": [(8, 8, 12, 12)] * 8}
    anywhere = correspondence(net, images, marks, masking=Masking(draws=8))
    assert anywhere.layers[0].verdict == "consistent"  # of noise! Only the place is the same.
    assert "part-in-one-place" in {finding.fault for finding in anywhere.findings}
    together = correspondence(net, images, marks, masking=Masking(draws=8, placement="together"))
    assert together.layers[0].verdict == "undecided"
    assert "part-in-one-place" not in {finding.fault for finding in together.findings}


def test_random_patches_that_cover_the_part_are_remarked():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    marks = {"p": [(0, 0, 9, 12), (1, 0, 10, 12), (0, 0, 9, 12)]}
    for placement in ("anywhere", "together"):
        masking = Masking(draws=2, placement=placement)
        found = correspondence(net, torch.randn(3, 3, 10, 12), marks, masking=masking)
        assert "patches-cover-the-part" in {finding.fault for finding in found.findings}


def test_points_are_boxes_and_two_images_have_no_interval():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    images = torch.randn(2, 1, 12, 15)
    by_point = correspondence(net, images, {"p": [(5, 6), (0, 14)]}, masking=Masking(size=(3, 5), draws=2))
    by_box = correspondence(net, images, {"p": [(4, 4, 7, 9), (0, 10, 3, 15)]}, masking=Masking(draws=2))
    assert by_point.layers == by_box.layers
    (row,) = by_point.layers[0].parts
    assert (row.here.delta.standard_error, row.verdict) == (None, "undecided")
    assert row.reason == "an interval takes three images"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tells_the_same_story(dtype):
    net, images, marks = planted(5)
    half = correspondence(net.to(dtype), images, {"p": marks}, "self", Masking(draws=3)).layers[0]
    assert half.parts[0].here.delta.value < 0.02
    assert half.verdict == "consistent"


def test_the_model_comes_back_as_it_was_also_after_a_failure():
    model = ResidualNet().train()
    model.bn1.eval()
    images = torch.randn(4, 3, 17, 13)
    before, numbers = state_of(model), torch.get_rng_state()
    marks = {"a": [(2, 3, 6, 7)] * 4, "b": [(0, 0, 2, 2), None, (9, 9, 12, 12), (3, 3, 4, 4)]}
    found = correspondence(model, images, marks, masking=Masking(draws=2))
    assert [layer.name for layer in found.layers] == ["stem.0", "conv1", "conv2", "shortcut"]
    assert [row.part for row in found.layers[0].parts] == ["a", "b"]
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), numbers)
    again = correspondence(model, images, marks, masking=Masking(draws=2))
    assert again == found
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    before = state_of(model)
    with pytest.raises(ConvscopeError, match="features of conv2 in image 0 with NaN"):
        correspondence(model, images, marks, ["conv2"])
    assert state_of(model) == before


def test_bad_input_is_told():
    net, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(3, 3, 10, 12)
    box = (1, 1, 4, 4)

    def refused(match, parts=None, given=images, layers="all", model=net, **masking):
        with pytest.raises(ConvscopeError, match=match):
            correspondence(
                model, given, {"p": [box] * 3} if parts is None else parts, layers, Masking(**masking)
            )

    refused("no parts", {})
    refused("no parts", [])
    refused("parts with 2 and 3 marks", {"a": [box] * 3, "b": [box] * 2})
    refused("marks for 2 images, but 3 images", {"a": [box] * 2})
    refused("marks for 4 images, but 3 images", {"a": [box] * 4})
    refused("marked in fewer than two images", {"a": [box, None, None]})
    refused("marked in fewer than two images", {"a": [box]}, images[:1])
    refused("no images", {"a": [box]}, images[:0])
    for bad in ((0, 0, 11, 3), (-1, 0, 3, 3), (3, 3, 3, 5), (5, 5, 4, 9), (0, 0, 3, 13)):
        refused(r"part 'p' in image 1: the box", {"p": [box, bad, box]})
    for bad in (("a", 1), 7, (1, 2, 3), (0.5, 1, 4, 4), "box", (True, 1, 4, 4)):
        refused(r"part 'p' in image 1: ", {"p": [box, bad, box]})
    refused("a point, with size=None", {"p": [(1, 1)] * 3})
    refused("the point", {"p": [(10, 1)] * 3}, size=(3, 3))
    refused("a point, with size", {"p": [(1, 1)] * 3}, size=(11, 3))
    refused("unknown layer", layers=["nowhere"])
    refused("name at least one", layers=[])
    refused("fill with 2 numbers", fill=(0.0, 1.0))
    refused("fill=", fill=float("nan"))
    refused("draws=0", draws=0)
    refused("placement=", placement="here")
    refused("NaN or infinite", given=images.clone().index_fill_(0, torch.tensor(1), torch.nan))
    refused("meta device", model=nn.Conv2d(3, 4, 3, device="meta"))
    refused(
        "normalises by the statistics of a whole batch",
        model=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    )
    refused("the shape that the network takes", given=torch.randn(3, 2, 10, 12))


@pytest.mark.parametrize(
    ("parts", "masking", "said"),
    [
        ({"nose": 5}, None, "part 'nose' of type int; expected a list of marks"),
        ({"nose": "here"}, None, "part 'nose' of type str; expected a list of marks"),
        ({"nose": [(1, 1, 3, 3)] * 2}, 3, "masking of type int; expected a Masking"),
        ({"nose": [(1, 1)] * 2}, Masking(size=3), "a point, with size=3"),
    ],
)
def test_parts_are_lists_and_a_masking_is_a_masking(parts, masking, said):
    with pytest.raises(ConvscopeError, match=said):
        correspondence(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(2, 1, 9, 9), parts, masking=masking)

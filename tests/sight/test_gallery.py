import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import FunctionalNet, ResidualNet
from convscope import norm
from convscope.core.errors import ConvscopeError
from convscope.sight import ImageSource, gallery, project, stem
from convscope.sight.tiles import as_rgb, signed_display


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3),
        )  # fmt: skip


@pytest.fixture
def images():
    return torch.randn(25, 3, 37, 41, dtype=torch.float64)


def test_every_entry_is_the_single_projection_of_its_place(tmp_path, images):
    net = Net().double()
    found = gallery(net, ImageSource(images, batch_size=6), top=4, out=tmp_path / "out")
    assert [layer.name for layer in found.layers] == ["0", "3", "6"]
    for layer in found.layers[:2]:
        sprites = [
            np.asarray(Image.open(tmp_path / "out" / name))
            for name in (layer.sprite.patches, layer.sprite.projections)
        ]
        for unit in layer.units[::3]:
            for rank, example in enumerate(unit.examples):
                view = project(net, images[example.image], layer.unit_address, unit.index)
                assert view.position == example.position
                assert view.box == example.box
                assert view.seed_value == pytest.approx(example.value, rel=1e-9)
                box = example.box
                part = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
                patch = ImageSource(images).shown(images[example.image].float().numpy()[part])
                projection = signed_display(view.image.float().numpy().transpose(2, 0, 1)[part])
                for sprite, picture in zip(sprites, (patch, projection)):
                    tile = _tile(sprite, layer.sprite, unit.index, rank)
                    difference = tile.astype(int) - _enlarged(as_rgb(picture), layer.sprite.tile)
                    assert abs(difference).max() <= 1


def _tile(sprite, layout, unit, rank):
    block = layout.side * layout.tile
    top = (unit // layout.across) * block + (rank // layout.side) * layout.tile
    left = (unit % layout.across) * block + (rank % layout.side) * layout.tile
    return sprite[top : top + layout.tile, left : left + layout.tile]


def _enlarged(picture, tile):
    factor = tile // max(picture.shape[:2])
    assert factor >= 1
    result = np.full((tile, tile, 3), 128, int)
    large = np.kron(picture, np.ones((factor, factor, 1), int))
    top, left = (tile - large.shape[0]) // 2, (tile - large.shape[1]) // 2
    result[top : top + large.shape[0], left : left + large.shape[1]] = large
    return result


def test_units_hold_the_strongest_images_and_their_statistics(tmp_path, images):
    net = Net().double().eval()
    found = gallery(net, images, layers=["3"], out=tmp_path / "out")
    with torch.no_grad():
        maps = nn.Sequential(*list(net)[:6])(images)
    (layer,) = found.layers
    assert (found.num_images, found.image_size, layer.map_size) == (25, (37, 41), tuple(maps.shape[2:]))
    for unit in layer.units:
        peaks = maps[:, unit.index].amax((1, 2))
        expected = [i for i in peaks.argsort(descending=True, stable=True).tolist() if peaks[i] > 0][:9]
        assert [example.image for example in unit.examples] == expected
        assert unit.mean == pytest.approx(float(maps[:, unit.index].mean()), rel=1e-9)
        assert unit.active_images == pytest.approx(float((peaks > 0).double().mean()))


def test_dead_units_are_found_and_have_no_examples(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([100.0, -100.0, 100.0]))
    found = gallery(net, torch.rand(4, 1, 8, 8), out=tmp_path / "out")
    (layer,) = found.layers
    assert layer.dead == (1,)
    assert [len(unit.examples) for unit in layer.units] == [4, 0, 4]
    dead = next(finding for finding in found.findings if finding.fault == "dead-units")
    assert [evidence.value for evidence in dead.evidence] == [1, pytest.approx(1 / 3)]


def test_a_network_of_dead_units_has_an_empty_gallery(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    nn.init.constant_(net[0].bias, -1e6)
    found = gallery(net, torch.rand(4, 1, 8, 8), out=tmp_path / "out")
    assert found.layers[0].dead == (0, 1, 2)
    assert found.layers[0].selectivity is None


def test_the_files_say_the_same_as_the_result(tmp_path, images):
    found = gallery(Net().double(), images, top=2, out=tmp_path / "out")
    index = json.loads((tmp_path / "out" / found.index).read_text())
    assert index == json.loads(found.to_json())
    script = (tmp_path / "out" / found.script).read_text()
    assert script.startswith("window.convscopeGallery = ")
    assert json.loads(script.removeprefix("window.convscopeGallery = ").removesuffix(";\n")) == index
    for layer in found.layers:
        assert (tmp_path / "out" / layer.sprite.patches).exists()
    assert len(list((tmp_path / "out").iterdir())) == 2 + 2 * 3


def test_names_cannot_leave_the_script_or_the_folder(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("</script>/x", nn.Conv2d(1, 2, 3))

        def forward(self, x):
            return next(self.children())(x)

    source = ImageSource(torch.rand(2, 1, 5, 5), names=["</script><b>\u2028", "b"])
    found = gallery(Odd(), source, out=tmp_path / "out")
    assert found.layers[0].name == "</script>/x"
    script = (tmp_path / "out" / found.script).read_text()
    assert "</script" not in script
    assert "\u2028" not in script
    assert {path.parent for path in (tmp_path / "out").rglob("*")} == {tmp_path / "out"}
    assert found.layers[0].units[0].examples[0].name in ("</script><b>\u2028", "b")


@pytest.mark.parametrize("make", [ResidualNet, FunctionalNet])
@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_residual_and_functional_networks_work(tmp_path, make, rule):
    found = gallery(make().train(), torch.randn(6, 3, 17, 13), out=tmp_path / "out", rule=rule)
    assert all(unit.examples or unit.dead for layer in found.layers for unit in layer.units)


class Branched(nn.Module):
    """A deep branch runs before the layer of interest, and needs more room than its window has."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(nn.Conv2d(3, 2, 9, stride=4), nn.MaxPool2d(5))
        self.near = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.deep(x).sum() + self.near(x).sum()


class Positional(nn.Module):
    """The same pixels mean something else elsewhere, which no receptive field tells."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)

    def forward(self, x):
        return self.conv(x * torch.linspace(0.1, 3, x.shape[3], dtype=x.dtype)).relu()


class Checking(nn.Module):
    """Checks its input's size, as vision transformers do."""

    def __init__(self, error=AssertionError):
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 4, 3, stride=3), error

    def forward(self, x):
        if x.shape[2:] != (37, 41):
            raise self.error("Input height doesn't match model.")
        return self.conv(x).relu()


class Refusing(Checking):
    def __init__(self):
        super().__init__(KeyError)


@pytest.mark.parametrize(
    ("make", "name"), [(Branched, "near"), (Positional, "conv"), (Checking, "conv"), (Refusing, "conv")]
)
def test_where_windows_fail_whole_images_are_used(tmp_path, images, make, name):
    net = make().double()
    (layer,) = gallery(net, images, layers=[name], top=1, out=tmp_path / "out").layers
    sprite = np.asarray(Image.open(tmp_path / "out" / layer.sprite.projections))
    for unit in layer.units:
        (example,) = unit.examples
        view = project(net, images[example.image], layer.unit_address, unit.index)
        box = example.box
        part = view.image[box.top : box.bottom, box.left : box.right].permute(2, 0, 1).float().numpy()
        expected = _enlarged(as_rgb(signed_display(part)), layer.sprite.tile)
        assert abs(_tile(sprite, layer.sprite, unit.index, 0).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tiny_activations_and_half_precision_are_not_taken_for_changed_images(tmp_path, images, dtype):
    net = Net()
    with torch.no_grad():
        net[3].weight[2] *= 1e-7
        net[4].bias[2] = 1e-7
    found = gallery(net.to(dtype), ImageSource(images, batch_size=4), top=3, out=tmp_path / "out")
    assert len(found.layers) == 3


def test_batches_of_the_source_do_not_matter(tmp_path, images):
    net = Net().double()
    found = [
        gallery(net, source, top=3, out=tmp_path / str(number))
        for number, source in enumerate(
            (
                ImageSource(images, batch_size=25),
                ImageSource(images, batch_size=4),
                DataLoader(TensorDataset(images)),
            )
        )
    ]
    ranked = [
        [[(e.image, e.position, e.box) for e in unit.examples] for layer in g.layers for unit in layer.units]
        for g in found
    ]
    assert ranked[0] == ranked[1] == ranked[2]


def test_shuffled_images_are_refused_and_nothing_is_left(tmp_path, images):
    loader = DataLoader(TensorDataset(images), batch_size=5, shuffle=True)
    with pytest.raises(ConvscopeError, match="shuffle=False"):
        gallery(Net().double(), loader, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Changing:
    """Images that are others each time they are read."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[(index + self.reads // 40) % len(self)]


def test_images_that_change_are_refused_and_nothing_is_left(tmp_path, images):
    with pytest.raises(ConvscopeError, match="augmentation"):
        gallery(Net().double(), Changing(images), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, norm.BatchNorm2d])
def test_normalisation_by_the_batch_is_told_as_the_reason(tmp_path, images, kind):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), kind(4, track_running_stats=False), nn.Conv2d(4, 3, 3), nn.ReLU()
    ).double()
    with pytest.raises(ConvscopeError, match=r"layer 3, which 2#1.* by the batch.*track_running_stats=True"):
        gallery(net, images, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert len(gallery(net, images, layers="0", out=tmp_path / "out").layers) == 1


@pytest.mark.parametrize("kind", [nn.InstanceNorm2d, norm.InstanceNorm2d])
def test_instance_norm_sees_the_whole_image(tmp_path, images, kind):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4), nn.ReLU()).double()
    (layer,) = gallery(net, images, top=1, out=tmp_path / "out").layers
    assert layer.receptive_field is None
    for unit in layer.units:
        box = unit.examples[0].box
        assert (box.height, box.width) == (37, 41)


def test_images_that_fail_the_networks_own_check_are_named(tmp_path):
    images = [torch.randn(1, 3, 37, 41), torch.randn(1, 3, 36, 41)]
    with pytest.raises(ConvscopeError, match=r"images 1 to 1 .* fail in self#1 \(Input height"):
        gallery(Checking(), images, out=tmp_path / "out")
    with pytest.raises(ConvscopeError, match=r"images 1 to 1 .* fail in self#1 \(Input height"):
        stem(Checking(), images)


def test_negated_units_are_ranked_by_what_comes_on(tmp_path, images):
    class Negated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return F.relu(-self.conv(x))

    net = Negated().double()
    (layer,) = gallery(net, images, top=3, out=tmp_path / "out").layers
    with torch.no_grad():
        peaks = net(images).amax((2, 3))
    for unit in layer.units:
        order = peaks[:, unit.index].argsort(descending=True)[:3].tolist()
        assert [example.image for example in unit.examples] == order


def test_a_failure_keeps_the_older_gallery(tmp_path, images):
    out = tmp_path / "out"
    gallery(Net().double(), images, layers=["0"], top=1, out=out)
    before = (out / "index.json").read_bytes()
    with pytest.raises(ConvscopeError):
        gallery(Net().double(), Changing(images), out=out)
    assert (out / "index.json").read_bytes() == before


def test_image_independent_layers_are_told(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
    found = gallery(net, torch.randn(8, 3, 15, 15), out=tmp_path / "out")
    addresses = [f.address for f in found.findings if f.fault == "image-independent-projection"]
    assert addresses == ["2#1:convolution.1"]  # the first layer's projection is its filter, and should be
    assert found.layers[1].image_dependence == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"top": 0}, "top=0"),
        ({"top": 1.5}, "top=1.5"),
        ({"top": True}, "top"),
        ({"layers": []}, r"layers=\[\]"),
        ({"rule": "lrp"}, "guided"),
        ({"layers": ["9"]}, "'9'"),
    ],
)
def test_bad_choices_are_named(tmp_path, images, choice, message):
    with pytest.raises(ConvscopeError, match=message):
        gallery(Net().double(), images, out=tmp_path / "out", **choice)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path, images):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConvscopeError, match="written"):
        gallery(Net().double(), images, out=tmp_path / "file")


def test_random_state_is_left_alone(tmp_path, images):
    net = Net().double()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    gallery(net, images, top=1, out=tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]

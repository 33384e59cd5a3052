import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import FunctionalNet, ResidualNet
from convscope import norm
from convscope.core.errors import ConvscopeError
from convscope.sight import ImageSource, Origin, gallery, project, stem
from convscope.sight.collecting.tally import Tally
from convscope.sight.picturing import places, varying
from convscope.sight.picturing.options import GalleryOptions
from convscope.sight.picturing.second_look import SecondLook
from convscope.sight.picturing.tiles import as_rgb, signed_display
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.reach import reach


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
            for (name,) in (layer.sprite.patches, layer.sprite.projections)
        ]
        for unit in layer.units[::3]:
            for rank, example in enumerate(unit.examples):
                view = project(net, images[example.image], layer.unit_address, unit.index, found.rule)
                assert view.position == example.position
                assert view.box == example.box
                assert view.seed_value == pytest.approx(example.value, rel=1e-9)
                box = example.box
                part = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
                patch = ImageSource(images).shown(images[example.image].float().numpy()[part])
                projection = signed_display(view.image.float().numpy().transpose(2, 0, 1)[part])
                for sprite, picture in zip(sprites, (patch, projection)):
                    tile = _tile(sprite, layer.sprite, unit.index, rank)
                    assert _is(tile, _enlarged(as_rgb(picture), layer.sprite.tile))


def _tile(sprite, layout, unit, rank):
    block = layout.side * layout.tile
    top = (unit // layout.across) * block + (rank // layout.side) * layout.tile
    left = (unit % layout.across) * block + (rank % layout.side) * layout.tile
    return sprite[top : top + layout.tile, left : left + layout.tile]


def _is(tile, expected):
    """Whether a tile is a picture; enlarged ones are stored without loss."""
    return abs(tile.astype(int) - expected).max() <= 1


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
        for name in (*layer.sprite.patches, *layer.sprite.projections):
            assert (tmp_path / "out" / name).exists()
    assert len(list((tmp_path / "out").iterdir())) == 4 + 2 * 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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
@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gated", "gradient"])
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
    (layer,) = gallery(net, images, layers=[name], top=1, out=tmp_path / "out", rule="guided").layers
    assert layer.window is not None
    assert layer.num_whole == 4
    sprite = np.asarray(Image.open(tmp_path / "out" / layer.sprite.projections[0]))
    for unit in layer.units:
        (example,) = unit.examples
        view = project(net, images[example.image], layer.unit_address, unit.index, "guided")
        box = example.box
        part = view.image[box.top : box.bottom, box.left : box.right].permute(2, 0, 1).float().numpy()
        expected = _enlarged(as_rgb(signed_display(part)), layer.sprite.tile)
        assert _is(_tile(sprite, layer.sprite, unit.index, 0), expected)


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
        gallery(net, source, top=3, out=tmp_path / str(number), options=GalleryOptions(judge=0))
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
    with pytest.raises(ConvscopeError, match=r"2#1.* of a whole batch.*track_running_stats=True"):
        gallery(net, images, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert len(gallery(net, images, layers="0", out=tmp_path / "out").layers) == 1


@pytest.mark.parametrize("kind", [nn.InstanceNorm2d, norm.InstanceNorm2d])
def test_instance_norm_is_held_in_windows(tmp_path, images, kind):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), kind(4), nn.ReLU()).double()
    (layer,) = gallery(net, images, top=1, out=tmp_path / "out", rule="gated").layers
    assert layer.receptive_field.size == layer.window == (3, 3)
    assert layer.num_whole == 0
    sprite = np.asarray(Image.open(tmp_path / "out" / layer.sprite.projections[0]))
    for unit in layer.units:
        (example,) = unit.examples
        view, box = project(net, images[example.image], layer.unit_address, unit.index, "gated"), example.box
        part = view.image[box.top : box.bottom, box.left : box.right].permute(2, 0, 1).float().numpy()
        expected = _enlarged(as_rgb(signed_display(part)), layer.sprite.tile)
        assert _is(_tile(sprite, layer.sprite, unit.index, 0), expected)


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
    found = gallery(net, torch.randn(8, 3, 15, 15), out=tmp_path / "out", rule="deconvnet")
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


def test_pools_and_transposed_convolutions_are_layers_too(tmp_path, images):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 3, 4, stride=2), nn.ReLU()
    ).double()
    found = gallery(net, images, layers=["2", "3"], top=2, out=tmp_path / "out")
    pool, up = found.layers
    assert (pool.name, pool.unit_address) == ("2", "2#1:max_pool2d_with_indices.1")
    assert (up.name, up.window, up.receptive_field) == ("3", None, None)
    with torch.no_grad():
        maps = net[:3](images)
    for unit in pool.units:
        peaks = maps[:, unit.index].amax((1, 2))
        assert [example.image for example in unit.examples] == peaks.argsort(descending=True)[:2].tolist()
    with pytest.raises(ConvscopeError, match="shape"):
        gallery(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(5460, 2)).double(),
            images, layers=["1"], out=tmp_path / "flat",
        )  # fmt: skip


def test_behind_upsampling_pictures_are_of_what_each_position_sees(tmp_path, images):
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 3), nn.ReLU()
    ).double()
    _, layer = gallery(net, images, top=2, out=tmp_path / "out", rule="guided").layers
    assert layer.receptive_field is None
    assert layer.sprite.tile == 30  # six times five pixels
    sprite = np.asarray(Image.open(tmp_path / "out" / layer.sprite.projections[0]))
    sides = set()
    for unit in layer.units:
        for rank, example in enumerate(unit.examples):
            view = project(net, images[example.image], layer.unit_address, unit.index, "guided")
            box = example.box
            assert (view.position, view.box) == (example.position, box)
            # Three rows of a map that was doubled are two of the map before, wherever one begins.
            sides |= {box.height, box.width}
            part = view.image[box.top : box.bottom, box.left : box.right].permute(2, 0, 1).float().numpy()
            assert abs(part).sum() == pytest.approx(float(view.image.abs().sum()))
            expected = _enlarged(as_rgb(signed_display(part)), layer.sprite.tile)
            assert _is(_tile(sprite, layer.sprite, unit.index, rank), expected)
    assert sides == {5}


@pytest.mark.parametrize("rule", ["guided", "gradient"])
def test_where_a_position_sees_the_whole_image_no_other_is_asked(tmp_path, images, rule, monkeypatch):
    asked = []
    monkeypatch.setattr(varying, "reach", lambda *given: asked.append(given[3]) or reach(*given))
    net = nn.Sequential(
        nn.Conv2d(3, 6, 9, stride=4), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 16), nn.ReLU()
    ).double()
    _, layer = gallery(net, images, top=2, out=tmp_path / "out", rule=rule).layers
    assert asked == ([] if rule == "gradient" else [[(0, 1)]])
    boxes = {example.box for unit in layer.units for example in unit.examples}
    assert boxes == {Box(0, 0, *found) for found in [(37, 41)]}


def test_layers_that_cannot_be_projected_keep_their_patches(tmp_path, images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.SiLU()).double()
    found = gallery(net, images, top=2, out=tmp_path / "out", rule="deconvnet")
    first, second = found.layers
    assert first.projected is None
    assert "silu at 3#1:silu.1" in second.projected
    assert (second.census, second.sprite.projections) == (None, ())
    assert all(len(unit.examples) == 2 for unit in second.units)
    assert (tmp_path / "out" / second.sprite.patches[0]).exists()
    assert [f.address for f in found.findings if f.fault == "not-projected"] == ["2#1:convolution.1"]
    with pytest.raises(ConvscopeError, match="none of the layers"):
        gallery(net, images, layers="2", out=tmp_path / "none", rule="deconvnet")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_layer_that_is_not_differentiable_keeps_its_patches(tmp_path, images):
    class Detached(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x).relu().detach()).relu()

    net = Detached(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)).double()
    first, second = gallery(net, images, top=1, out=tmp_path / "out").layers
    assert first.projected is None
    assert "isn't differentiable" in second.projected


def test_a_full_disk_keeps_what_is_done(tmp_path, images, monkeypatch):
    monkeypatch.setattr(places, "BLOCK_PLACES", 10)
    written, write = [], Path.write_bytes

    def full(path, content):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, content)

    net, out = Net().double(), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(ConvscopeError, match="No space left") as caught:
        patch.setattr(Path, "write_bytes", full)
        gallery(net, images, top=2, out=out, options=GalleryOptions(judge=0))
    assert "make room and start again" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    kept = {
        file: file.stat().st_mtime_ns for file in (tmp_path / "out.partial").glob("blocks-*/*.safetensors")
    }
    assert len(kept) == 1  # and the scan, written before
    gallery(net, images, top=2, out=out, options=GalleryOptions(judge=0))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


FULL = OSError(errno.ENOSPC, "No space left on device")


def full_from(name, method):
    """A method which writes files, on a disk that is full when it comes to one of this name."""

    def write(self, first, *rest, **settings):
        target = self if isinstance(self, Path) else next(a for a in (first, *rest) if isinstance(a, Path))
        if name in target.name:
            raise FULL
        return method(self, first, *rest, **settings)

    return write


@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("000-0-patches", Image.Image, "save"),
        ("002-6-projections", Image.Image, "save"),
        ("units.safetensors", Path, "write_bytes"),
        ("index.json", Path, "write_text"),
        ("gallery.js", Path, "write_text"),
        ("index.html", Path, "write_text"),
    ],
)
def test_a_disk_that_is_full_in_the_end_is_told_and_the_work_kept(
    tmp_path, images, monkeypatch, name, owner, method
):
    net, out = Net().double(), tmp_path / "out"
    options = GalleryOptions(judge=0)
    gallery(net, images, layers=["0"], top=1, out=out, options=options)
    older = (out / "index.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(ConvscopeError, match="No space left") as caught:
        patch.setattr(owner, method, full_from(name, getattr(owner, method)))
        gallery(net, images, top=2, out=out, options=options)
    assert "out.partial': make room and start again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.partial"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "out.partial").iterdir()) == [
        "blocks", "scan"
    ]  # fmt: skip
    assert (out / "index.json").read_bytes() == older

    def nothing(*given, **settings):
        raise AssertionError("done already")

    with monkeypatch.context() as patch:
        patch.setattr(SecondLook, "_pictures", nothing)
        patch.setattr(Tally, "add", nothing)
        gallery(net, images, top=2, out=out, options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((out / "index.json").read_text())["top"] == 2


def test_files_are_written_where_a_killed_run_leaves_no_trace(tmp_path, images, monkeypatch):
    seen, save = set(), Image.Image.save

    def watched(self, *given, **settings):
        seen.update(path.name for path in tmp_path.iterdir())
        return save(self, *given, **settings)

    monkeypatch.setattr(Image.Image, "save", watched)
    leftover = tmp_path / "out.partial" / "gallery"
    leftover.mkdir(parents=True)
    (leftover / "000-gone-patches.webp").write_bytes(b"half")
    found = gallery(Net().double(), images, top=1, out=tmp_path / "out", options=GalleryOptions(judge=0))
    assert seen == {"out.partial"}
    assert not (Path(found.folder) / "000-gone-patches.webp").exists()


def test_what_it_is_made_of_is_in_its_files(tmp_path, images):
    made = Origin.now("zfnet", "final.safetensors", "photos")
    for origin in (made, None):
        options = GalleryOptions(judge=0, origin=origin)
        found = gallery(Net().double(), images, layers="0", top=1, out=tmp_path / "out", options=options)
        told = json.loads((tmp_path / "out" / "index.json").read_text())["origin"]
        assert told == found.to_dict()["origin"]
        words = ["zfnet", "final.safetensors", "photos", made.written] if origin else ["Net", "", "", ""]
        assert [told[name] for name in ("network", "weights", "data", "written")] == words
        assert dict(told["versions"])["PyTorch"] == torch.__version__


def test_all_files_may_be_read_by_the_same_people(tmp_path, images):
    found = gallery(Net().double(), images, top=1, out=tmp_path / "out", options=GalleryOptions(judge=0))
    assert len({path.stat().st_mode for path in Path(found.folder).iterdir()}) == 1


def test_a_block_that_lost_its_end_is_made_anew(tmp_path, images, monkeypatch):
    monkeypatch.setattr(places, "BLOCK_PLACES", 10)
    net, out, options = Net().double(), tmp_path / "out", GalleryOptions(judge=0)
    gallery(net, images, top=2, out=out, options=options)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(ConvscopeError, match="No space left"):
        patch.setattr(Image.Image, "save", full_from("patches", Image.Image.save))
        gallery(net, images, top=2, out=out, options=options)
    first, second, *_ = sorted((tmp_path / "out.partial").glob("blocks-*/*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"")
    gallery(net, images, top=2, out=out, options=options)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_more_pictures_than_a_sprite_holds_are_refused_before_anything_is_run(tmp_path, images, monkeypatch):
    monkeypatch.setattr(Tally, "add", lambda *given: pytest.fail("images were looked at"))
    with pytest.raises(ConvscopeError, match="top=2000000"):
        gallery(Net().double(), images, top=2_000_000, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_working_folder_of_someone_else_is_refused(tmp_path, images):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConvscopeError, match="thesis"):
        gallery(Net().double(), images, out=tmp_path / "out")


def test_the_numbers_are_the_units(tmp_path, images):
    found = gallery(Net().double(), images, top=2, out=tmp_path / "out")
    with safe_open(tmp_path / "out" / found.numbers, "pt") as opened:
        for number, layer in enumerate(found.layers):
            values = opened.get_tensor(f"{number}.values")
            for unit in layer.units:
                assert [e.value for e in unit.examples] == [v for v in values[unit.index].tolist() if v > 0]
                score = float(opened.get_tensor(f"{number}.scores")[unit.index, 0])
                expected = None if unit.scores is None else unit.scores.selectivity
                assert (score == expected) if expected is not None else np.isnan(score)


def test_every_unit_or_none_is_judged_if_that_is_asked_for(tmp_path, images):
    net = Net().double()
    for judge in ("all", 0):
        options = GalleryOptions(judge=judge)
        (layer,) = gallery(net, images, "0", top=1, out=tmp_path / str(judge), options=options).layers
        assert all((unit.scores is not None) == (judge == "all") for unit in layer.units if unit.examples)
    with pytest.raises(ConvscopeError, match="judge"):
        GalleryOptions(judge="some")


@pytest.mark.parametrize(("limit", "is_told"), [(0.05, True), (1e9, False)])
def test_units_whose_examples_are_all_equal_are_told(tmp_path, images, limit, is_told):
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Hardtanh(0, limit)).double()
    found = gallery(net, images, top=3, out=tmp_path / "out", options=GalleryOptions(judge=0))
    tied = sum(len(unit.examples) == 3 and unit.examples[-1].value == limit for unit in found.layers[0].units)
    told = [finding.evidence[0].value for finding in found.findings if finding.fault == "tied-units"]
    assert (told == [tied], tied > 0) == (is_told, is_told)

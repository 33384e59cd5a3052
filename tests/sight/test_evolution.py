"""Against projections and activations taken by hand from copies of the network at each epoch."""

import copy
import json
import math
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import Evolution, ImageSource, project
from convscope.sight.evolving.convergence import aligned_cosine, converged_at, correlations
from convscope.sight.evolving.moment import Appearance, load_moment
from convscope.sight.projecting.projection import Box
from convscope.tape.receptive_field import ReceptiveField
from processes import in_processes


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
        )  # fmt: skip


IMAGES = torch.randn(10, 3, 15, 19)
ENDS = {"0": 3, "4": 6, "7": 9}


def training(evolution, epochs=5, optimizer=None, net=None, rate=0.1):
    """A loop with dropout, running statistics and shuffling; and copies of the network after each epoch."""
    torch.manual_seed(4)
    net = net or Net()
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    states = []
    for epoch in range(1, epochs + 1):
        net.train()
        for rows in torch.randperm(len(IMAGES)).split(5):
            optimizer.zero_grad()
            F.cross_entropy(net(IMAGES[rows]), rows % 4).backward()
            optimizer.step()
        if evolution is not None:
            evolution.after_epoch(net, epoch)
        states.append(copy.deepcopy(net))
    return net, optimizer, states, (torch.rand(1), np.random.rand())


def below(net, layer):
    return nn.Sequential(*list(net)[: ENDS[layer.name]])


def test_training_with_it_is_training_without_it_bit_for_bit(tmp_path):
    np.random.seed(0)
    plain, optimizer, _, drawn = training(None)
    np.random.seed(0)
    evolution = Evolution(IMAGES, epochs=(1, 2, 4), units=2, out=tmp_path / "out")
    watched, other, _, other_drawn = training(evolution)
    assert evolution.result().epochs == (1, 2, 4)
    for one, two in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(plain.parameters(), watched.parameters()):
        assert torch.equal(one.grad, two.grad)
        assert torch.equal(optimizer.state[one]["momentum_buffer"], other.state[two]["momentum_buffer"])
    assert drawn == other_drawn
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]


def test_every_appearance_is_the_one_found_by_hand(tmp_path):
    source = ImageSource(IMAGES, names=[f"image {i}" for i in range(10)], batch_size=4)
    evolution = Evolution(source, units=2, epochs=(1, 3, 5), out=tmp_path / "out", rule="deconvnet")
    _, _, states, _ = training(evolution)
    found = evolution.result()
    assert [layer.name for layer in found.layers] == ["0", "4", "7"]
    assert [[unit.index for unit in layer.units] for layer in found.layers] == [[0, 3], [0, 4], [0, 2]]
    for number, layer in enumerate(found.layers):
        for place, epoch in enumerate(found.epochs):
            net = states[epoch - 1].eval()
            with torch.no_grad():
                maps = below(net, layer)(IMAGES)
            peaks = maps.amax((2, 3))
            assert layer.num_dead[place] == int((peaks.amax(0) <= 0).sum())
            tensors = load_moment(tmp_path / "out", epoch).tensors
            torch.testing.assert_close(tensors[f"response.{number}"], peaks)
            for unit in layer.units:
                seen = unit.appearances[place]
                assert seen.epoch == epoch
                assert seen.dead == bool(peaks[:, unit.index].max() <= 0)
                if seen.dead:
                    assert (seen.image, seen.position, unit.alike[place]) == (None, None, None)
                    continue
                image = int(peaks[:, unit.index].argmax())
                assert (seen.image, seen.name) == (image, f"image {image}")
                assert seen.value == pytest.approx(float(peaks[image, unit.index]), rel=1e-5)
                assert seen.position == divmod(int(maps[image, unit.index].argmax()), maps.shape[3])
                view = project(net, IMAGES[image], layer.unit_address, unit.index, "deconvnet", seen.position)
                assert view.box == seen.box
                part = view.image.permute(2, 0, 1)[
                    :, seen.box.top : seen.box.bottom, seen.box.left : seen.box.right
                ]
                kept = tensors[f"projection.{number}.{unit.index}"]
                torch.testing.assert_close(kept.float(), part / part.abs().max(), atol=1e-3, rtol=1e-3)
    moved = [jump for layer in found.layers for unit in layer.units for jump in unit.jumps]
    assert moved  # a training from scratch changes some strongest image
    assert set(moved) <= {3, 5}


def test_jumps_and_deaths_are_those_planted(tmp_path):
    """Images are ones in one channel each, filters 1 × 1: the weights say which image is the strongest."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU())
    images = torch.zeros(3, 2, 4, 5)
    images[1, 0] = 1.0
    images[2, 1] = 1.0
    evolution = Evolution(images, units={"0": [0, 1, 2]}, epochs=(1, 2, 3, 4), out=tmp_path / "out")
    rows = {1: [(1, 0), (1, 0), (0, 1)], 2: [(1, 0), (0, 1), (0, 1)], 3: [(1, 0), (1, 0), (-1, -1)]}
    for epoch in (1, 2, 3, 4):
        with torch.no_grad():
            net[0].bias.zero_()
            net[0].weight[:, :, 0, 0] = torch.tensor(rows[min(epoch, 3)], dtype=torch.float32)
        assert evolution.after_epoch(net, epoch)
    (layer,) = evolution.result().layers
    assert [unit.jumps for unit in layer.units] == [(), (2, 3), ()]
    assert layer.num_dead == (0, 0, 1, 1)
    assert [[seen.image for seen in unit.appearances] for unit in layer.units] == [
        [1, 1, 1, 1], [1, 2, 1, 1], [2, 2, None, None],
    ]  # fmt: skip
    # The projection of a 1 × 1 filter is the filter itself: cosines are those of the weights.
    assert layer.units[0].alike == (1.0, 1.0, 1.0, 1.0)
    assert layer.units[1].alike == (1.0, 0.0, 1.0, 1.0)
    assert layer.units[2].alike == (None, None, None, None)
    assert layer.alike == (1.0, 0.5, 1.0, 1.0)
    assert layer.converged == 3
    found = evolution.result(threshold=0.5).layers[0]
    assert found.converged == 1
    assert [finding.fault for finding in evolution.result().findings] == ["units-died"]


def test_responses_are_correlations_over_the_images(tmp_path):
    evolution = Evolution(IMAGES, units=1, epochs=(1, 2, 3), out=tmp_path / "out")
    _, _, states, _ = training(evolution, epochs=3)
    for layer in evolution.result().layers:
        peaks = []
        for net in states:
            with torch.no_grad():
                peaks.append(below(net.eval(), layer)(IMAGES).amax((2, 3)).double().numpy())
        for place in range(3):
            pairs = zip(peaks[place].T, peaks[-1].T)
            known = [np.corrcoef(a, b)[0, 1] for a, b in pairs if a.std() > 0 and b.std() > 0]
            assert layer.response[place] == pytest.approx(np.median(known), abs=1e-5)


def test_projections_are_compared_at_the_units_own_position():
    field = ReceptiveField((4, 4), (2, 2), (-1, -1))
    whole = torch.randn(3, 4, 4)
    inside = Appearance(1, False, 1.0, 0, "", (2, 3), Box(3, 5, 7, 9))
    corner = Appearance(2, False, 1.0, 4, "", (0, 0), Box(0, 0, 3, 3))  # its first row and column are padding
    cut = whole[:, 1:, 1:]
    expected = float(cut.norm() / whole.norm())  # where the image ends there is zero
    assert aligned_cosine(field, (inside, whole), (corner, cut)) == pytest.approx(expected)
    assert aligned_cosine(field, (inside, whole), (inside, -whole)) == pytest.approx(-1)
    assert aligned_cosine(field, (inside, whole), (inside, whole * 0)) is None
    assert aligned_cosine(None, (inside, whole), (corner, cut)) == 0.0  # apart in the image


def test_convergence_is_for_good():
    assert converged_at((1, 2, 5), (0.95, None, 1.0), 0.9) is None
    assert converged_at((1, 2, 5), (None, 0.9, 1.0), 0.9) == 2
    assert converged_at((3,), (1.0,), 0.9) is None


def test_a_resumed_training_keeps_what_it_has(tmp_path):
    whole = Evolution(IMAGES, units=2, epochs=(1, 2, 4), out=tmp_path / "whole")
    training(whole)
    first = Evolution(IMAGES, units=2, epochs=(1, 2, 4), out=tmp_path / "parts")
    training(first, epochs=3)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("epoch-*")}
    again = Evolution(IMAGES, units=2, epochs=(1, 2, 4), out=tmp_path / "parts")
    training(again)
    for name, time in kept.items():
        assert (tmp_path / "parts" / name).stat().st_mtime_ns == time
    one, other = whole.result(), again.result()
    assert one.layers == other.layers
    assert other.findings == one.findings  # the same weights came by again
    for name in sorted(path.name for path in (tmp_path / "whole").iterdir()):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_another_training_in_the_same_folder_is_told(tmp_path):
    training(Evolution(IMAGES, units=1, epochs=(1, 2), out=tmp_path), epochs=2)
    again = Evolution(IMAGES, units=1, epochs=(1, 2), out=tmp_path)
    training(again, epochs=2, rate=0.05)
    faults = [finding.fault for finding in again.result().findings]
    assert "another-training" in faults
    with pytest.raises(ConvscopeError, match="of different layers"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        wider = Evolution(IMAGES, units=1, epochs=(1, 2, 3), out=tmp_path)
        wider.after_epoch(net, 3)
        wider.result()


def test_a_failure_in_a_later_epoch_doesnt_end_the_training(tmp_path):
    evolution = Evolution(IMAGES, units=1, epochs=(1, 2, 3), out=tmp_path / "out")
    net = Net()
    assert evolution.after_epoch(net, 1)
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken[4].weight[0, 0, 0, 0] = math.nan
    before = state_of(broken)
    with pytest.warns(RuntimeWarning, match="evolution of epoch 2: .*NaN"):
        assert not evolution.after_epoch(broken, 2)
    assert state_of(broken) == before
    assert evolution.after_epoch(net, 3)
    found = evolution.result()
    assert (found.epochs, found.missing) == ((1, 3), (2,))
    assert [(f.fault, f.severity) for f in found.findings] == [("epoch-missing", "warning")]
    with pytest.raises(ConvscopeError, match="NaN"):
        Evolution(IMAGES, epochs=(2,), out=tmp_path / "first").after_epoch(broken, 2)
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_context_makes_no_difference(context, tmp_path):
    net = ResidualNet().train()
    net.bn1.eval()
    images = torch.randn(4, 3, 17, 13)
    plain, inside = (Evolution(images, units=2, epochs=(1,), out=tmp_path / name) for name in "ab")
    before = state_of(net)
    plain.after_epoch(net, 1)
    with context():
        inside.after_epoch(net, 1)
    assert state_of(net) == before
    assert plain.result().layers == inside.result().layers


def test_wrappers_are_taken_off(tmp_path):
    net, compiled = Net().train(), nn.Module()
    compiled._orig_mod = net  # what torch.compile puts around a network
    for name, wrapped in (("a", net), ("b", nn.DataParallel(net)), ("c", compiled)):
        Evolution(IMAGES, units=1, epochs=(1,), out=tmp_path / name).after_epoch(wrapped, 1)
    files = [(tmp_path / name / "epoch-000001.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]


def test_the_strip_shows_epochs_across_and_units_down(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    images = torch.rand(2, 1, 30, 30)
    evolution = Evolution(ImageSource(images, (0.0,), (1.0,)), units=2, epochs=(1, 2, 3), out=tmp_path)
    for epoch in (1, 2, 3):
        with torch.no_grad():
            net[0].weight.fill_(1.0)
            net[0].bias.fill_(-100.0 if epoch == 2 else 0.0)
        evolution.after_epoch(net, epoch)
    (layer,) = evolution.result().layers
    strip = np.asarray(Image.open(tmp_path / layer.strip))
    tile = 30  # 3 × 3 pixels, enlarged tenfold
    assert strip.shape == (2 * tile + 2, 3 * (2 * tile + 4) - 4, 3)
    for row in range(2):
        for column in range(3):
            cell = strip[row * 32 : row * 32 + tile, column * 64 : column * 64 + 2 * tile]
            if column == 1:
                assert (cell == 128).all()
                continue
            assert (cell[:, :tile] == 255).all()  # a filter of ones, as bright as can be
            seen = layer.units[row].appearances[column]
            patch = images[seen.image, 0, seen.box.top : seen.box.bottom, seen.box.left : seen.box.right]
            expected = np.kron(np.rint(patch.numpy() * 255), np.ones((10, 10)))
            assert (cell[:, tile:, 0] == expected).all()
    assert (strip[:, 60:64] == 255).all()


def test_layers_that_cant_be_projected_keep_their_patches(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.SiLU())
    evolution = Evolution(IMAGES, units=2, epochs=(1, 2), out=tmp_path, rule="deconvnet")
    assert evolution.after_epoch(net, 1)
    assert evolution.after_epoch(net, 2)
    below, layer = evolution.result().layers
    assert (below.not_projected, below.alike) == ("", (pytest.approx(1.0), pytest.approx(1.0)))
    assert "silu" in layer.not_projected
    assert layer.alike == (None, None)
    assert layer.response == (pytest.approx(1.0), pytest.approx(1.0))
    assert (layer.converged, layer.response_converged) == (None, 1)
    kept = load_moment(tmp_path, 1).tensors
    assert {name for name in kept if name.startswith("patch.1")} == {"patch.1.0", "patch.1.2"}


def test_more_units_than_go_together_have_their_own_projections(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU())
    images = torch.randn(1, 3, 9, 8)  # one image is everybody's strongest
    Evolution(images, units=20, epochs=(1,), out=tmp_path).after_epoch(net, 1)
    tensors, weight = load_moment(tmp_path, 1).tensors, net[0].weight.detach()
    for unit, filtered in enumerate(weight):
        expected = filtered / filtered.abs().max()
        torch.testing.assert_close(tensors[f"projection.0.{unit}"].float(), expected, atol=1e-3, rtol=1e-3)


def test_different_images_in_one_batch_have_their_own_projections(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 40, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(40, 40, 1))
    images = torch.randn(6, 1, 10, 12)
    evolution = Evolution(images, layers=["3"], units=40, epochs=(1,), out=tmp_path, rule="deconvnet")
    evolution.after_epoch(net, 1)
    (layer,) = evolution.result().layers
    tensors = load_moment(tmp_path, 1).tensors
    firing = [unit for unit in layer.units if not unit.appearances[0].dead]
    assert len({unit.appearances[0].image for unit in firing}) > 2
    for unit in firing[::3]:
        (seen,) = unit.appearances
        view = project(net, images[seen.image], "3", unit.index, "deconvnet", seen.position)
        part = view.image.permute(2, 0, 1)[:, seen.box.top : seen.box.bottom, seen.box.left : seen.box.right]
        kept = tensors[f"projection.0.{unit.index}"].float()
        torch.testing.assert_close(kept, part / part.abs().max(), atol=1e-3, rtol=1e-3)


def test_a_loaders_seed_leaves_no_trace(tmp_path):
    loader = DataLoader(TensorDataset(IMAGES), batch_size=4)
    net, before = Net(), torch.get_rng_state()
    Evolution(loader, units=1, epochs=(1,), out=tmp_path).after_epoch(net, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_result_is_a_result(tmp_path):
    evolution = Evolution(IMAGES, units=1, epochs=(1, 2), out=tmp_path)
    training(evolution, epochs=2)
    found = evolution.result()
    assert json.loads(found.to_json())["epochs"] == [1, 2]
    assert "7" in str(found)


def test_the_lightning_callback_looks_after_each_epoch(tmp_path, monkeypatch):
    package, pytorch = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")
    pytorch.Callback, package.pytorch = type("Callback", (), {}), pytorch
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", pytorch)
    evolution = Evolution(IMAGES, units=1, epochs=(1, 3), out=tmp_path)
    callback = evolution.lightning_callback("model")
    assert isinstance(callback, pytorch.Callback)
    module = nn.ModuleDict({"model": Net()})
    for epoch in range(3):
        callback.on_train_epoch_end(types.SimpleNamespace(current_epoch=epoch), module)
    assert evolution.result().epochs == (1, 3)
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConvscopeError, match="after_epoch in your own loop"):
        evolution.lightning_callback()


def test_bad_input_is_told(tmp_path):
    out, net = tmp_path / "out", Net()
    for units in (0, -1, True, "4", {}, {"0": []}, {"0": [0.5]}, 1.5):
        with pytest.raises(ConvscopeError, match="units="):
            Evolution(IMAGES, units=units, out=out)
    for epochs in ((), (0,), (1.5,), 3, "12", (True,)):
        with pytest.raises(ConvscopeError, match="epochs="):
            Evolution(IMAGES, epochs=epochs, out=out)
    with pytest.raises(ConvscopeError, match="no images"):
        Evolution(IMAGES[:0], out=out)
    with pytest.raises(ConvscopeError, match="rule="):
        Evolution(IMAGES, out=out, rule="deconv")
    for settings, match in (
        ({"units": {"0": [6]}}, "unit 6 of 0"),
        ({"units": {"4": [0]}, "layers": ["0"]}, "units of '4'"),
        ({"layers": ["nowhere"]}, "nowhere"),
    ):
        with pytest.raises(ConvscopeError, match=match):
            Evolution(IMAGES, out=out, **settings).after_epoch(net, 1)
    with pytest.raises(ConvscopeError, match="meta device"):
        Evolution(IMAGES, out=out).after_epoch(nn.Conv2d(3, 4, 3, device="meta"), 1)
    with pytest.raises(ConvscopeError, match="no epoch in"):
        Evolution(IMAGES, out=out).result()
    with pytest.raises(ConvscopeError, match="threshold=0"):
        Evolution(IMAGES, out=out).result(threshold=0)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(ConvscopeError, match="holds other files"):
        Evolution(IMAGES, out=out)
    Evolution(IMAGES, units=1, out=tmp_path / "kept").after_epoch(net, 1)
    with pytest.raises(ConvscopeError, match="other units"):
        Evolution(IMAGES, units=2, out=tmp_path / "kept")
    (tmp_path / "kept" / "epoch-000001.safetensors").write_bytes(b"torn")
    with pytest.raises(ConvscopeError, match="which can't be read"):
        Evolution(IMAGES, units=1, out=tmp_path / "kept").result()


def test_images_that_change_are_refused(tmp_path):
    class Noisy:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return torch.rand(3, 12, 12)

    with pytest.raises(ConvscopeError, match="otherwise at a second reading"):
        Evolution(Noisy(), units=4, epochs=(1,), out=tmp_path / "out").after_epoch(Net(), 1)


@pytest.mark.slow
def test_processes_with_their_own_statistics_look_at_the_first_ones_network(tmp_path):
    state, _ = in_processes(2, _look_in_process, tmp_path)
    alone = Evolution(ImageSource(IMAGES_OF_ALL, batch_size=3), units=2, epochs=(1,), out=tmp_path / "alone")
    net = Net()
    net.load_state_dict(state)
    alone.after_epoch(net, 1)
    together = tmp_path / "together" / "epoch-000001.safetensors"
    assert together.read_bytes() == (tmp_path / "alone" / "epoch-000001.safetensors").read_bytes()


IMAGES_OF_ALL = torch.randn(10, 3, 15, 19, generator=torch.Generator().manual_seed(8))


def _look_in_process(rank, folder):
    torch.manual_seed(0)
    parallel = nn.parallel.DistributedDataParallel(Net().train())
    generator = torch.Generator().manual_seed(rank)
    parallel(torch.randn(4, 3, 15, 19, generator=generator)).sum().backward()
    before = state_of(parallel.module)
    images = ImageSource(IMAGES_OF_ALL, batch_size=3)
    evolution = Evolution(images, units=2, epochs=(1,), out=folder / "together")
    looked = evolution.after_epoch(parallel, 1)
    assert looked
    assert not evolution.after_epoch(parallel, 1)
    after = state_of(parallel.module)
    versions = [key for key in before if key.endswith("!kind")]
    assert {k: v for k, v in before.items() if k not in versions} == {
        k: v for k, v in after.items() if k not in versions
    }
    return parallel.module.state_dict()


@pytest.mark.parametrize("epoch", [0, -1, 1.0, "1", None, True])
def test_epochs_are_counted_from_one(epoch, tmp_path):
    evolution = Evolution(IMAGES, epochs=(1,), out=tmp_path / "out")
    with pytest.raises(ConvscopeError, match="expected the number of finished epochs, from 1"):
        evolution.after_epoch(Net(), epoch)
    assert not (tmp_path / "out").exists()


def test_epochs_may_be_numpys_and_networks_are_modules(tmp_path):
    evolution = Evolution(IMAGES, layers=["0"], epochs=(1,), out=tmp_path / "out")
    with pytest.raises(ConvscopeError, match="an object of type builtin_function_or_method as the network"):
        evolution.after_epoch(abs, 1)
    assert evolution.after_epoch(Net(), np.int64(1))
    assert evolution.result().epochs == (1,)
    with pytest.raises(ConvscopeError, match="threshold='a'"):
        evolution.result("a")
    with pytest.raises(ConvscopeError, match=r"units=\{'0': 3\}"):
        Evolution(IMAGES, units={"0": 3}, out=tmp_path / "other")


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_a_picture_is_itself_to_the_last_bit(scale):
    here = Appearance(1, False, 1.0, 0, "", (0, 0), Box(0, 0, 5, 7))
    for seed in range(50):
        picture = scale * torch.randn(
            3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        assert aligned_cosine(None, (here, picture), (here, picture.clone())) == 1.0
        assert aligned_cosine(None, (here, picture), (here, -0.3 * picture)) >= -1.0


def test_units_that_are_constant_but_for_rounding_are_left_out():
    one = torch.full((7, 1), 0.1, dtype=torch.float64)
    assert correlations(one, torch.rand(7, 1, dtype=torch.float64)) == ()


def test_other_images_take_another_folder(tmp_path):
    Evolution(IMAGES, layers=["0"], epochs=(1, 2), out=tmp_path / "out").after_epoch(Net(), 1)
    with pytest.raises(ConvscopeError, match="an evolution with other images"):
        Evolution(IMAGES + 0.1, layers=["0"], epochs=(1, 2), out=tmp_path / "out")
    assert Evolution(IMAGES.clone(), layers=["0"], epochs=(1, 2), out=tmp_path / "out").result().epochs == (
        1,
    )

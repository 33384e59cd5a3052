"""Comparing galleries where the answer is known: permuted, kept, killed and unrelated units."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from convscope.cli.main import main
from convscope.core.errors import ConvscopeError
from convscope.sight import GalleryComparison, ImageSource, compare_galleries, gallery, stem
from convscope.sight.picturing.options import GalleryOptions


def network(widths=(8, 12), seed=0, kernel=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, widths[0], kernel, stride=2), nn.ReLU(), nn.Conv2d(widths[0], widths[1], 3), nn.ReLU(),
    )  # fmt: skip


def pixels(count=60):
    return torch.randn(count, 3, 15, 17, generator=torch.Generator().manual_seed(9))


def made(folder, model, images=None, **options):
    images = pixels() if images is None else images
    return gallery(model, images, out=folder, options=GalleryOptions(judge=1), **options)


def permuted(model, orders):
    """The same network with the channels of its convolutions in other orders."""
    result = copy.deepcopy(model)
    first, second = result[0], result[2]
    with torch.no_grad():
        first.weight.copy_(first.weight[orders[0]])
        first.bias.copy_(first.bias[orders[0]])
        second.weight.copy_(second.weight[orders[1]][:, orders[0]])
        second.bias.copy_(second.bias[orders[1]])
    return result


@pytest.fixture
def before(tmp_path):
    return made(tmp_path / "before", network())


def test_a_permuted_network_is_matched_exactly(tmp_path, before):
    orders = torch.randperm(8).roll(1), torch.randperm(12).roll(5)
    after = made(tmp_path / "after", permuted(network(), orders))
    found = compare_galleries(before, after)
    for layer, order in zip(found.layers, orders):
        place_of = {unit: place for place, unit in enumerate(order.tolist())}
        assert layer.by == "profile"
        assert (layer.share_matched, layer.lost, layer.new) == (1, (), ())
        assert [pair.first.index for pair in layer.pairs] == list(range(len(order)))
        for pair in layer.pairs:
            place = place_of[pair.first.index]
            assert (pair.kind, pair.second.index, pair.nearest) == ("kept", place, place)
            assert pair.correlation == pytest.approx(1, abs=1e-5)
            assert pair.overlap == 1
            assert pair.first.maximum == pytest.approx(pair.second.maximum, rel=1e-5)
            assert pair.same_channel_is_nearest == (place == pair.first.index)
    assert found.findings == ()


def test_a_network_is_itself_by_channel(before):
    found = compare_galleries(before, before.folder)
    assert (found.layers_by, found.left_out, found.num_profile_images) == ("name", (), 60)
    for layer in found.layers:
        assert (layer.by, layer.share_by_channel, layer.share_matched) == ("channel", 1, 1)
        assert all(pair.first.index == pair.second.index for pair in layer.pairs)
        assert max(abs(pair.change) for pair in layer.pairs) < 1e-9


def test_a_slightly_changed_copy_is_compared_by_channel(tmp_path, before):
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter))
        model[2].weight[4] = torch.randn_like(model[2].weight[4]) * model[2].weight.std()
    (first, second) = compare_galleries(before, made(tmp_path / "after", model)).layers
    assert (first.by, first.count("kept"), second.by) == ("channel", 8, "channel")
    assert second.order[0] == 4
    assert second.pairs[4].correlation == min(pair.correlation for pair in second.pairs)
    changes = [second.pairs[number].change for number in second.order]
    assert changes == sorted(changes, reverse=True)
    assert 0.8 < second.median_correlation < 1


def test_unrelated_networks_share_hardly_more_than_chance(tmp_path):
    shares = []
    for seed in range(3):
        one = made(tmp_path / f"a{seed}", network((24, 40), 2 * seed + 1))
        other = made(tmp_path / f"b{seed}", network((24, 40), 2 * seed + 2))
        found = compare_galleries(one, other)
        assert [layer.by for layer in found.layers] == ["profile", "profile"]
        shares += [layer.share_matched for layer in found.layers]
        by_channel = compare_galleries(one, other, by="channel")
        shares += [layer.share_matched for layer in by_channel.layers]
    assert sum(shares) / len(shares) < 0.1


def test_other_widths_are_matched_by_profile(tmp_path, before):
    wide = network((11, 12), seed=2)
    with torch.no_grad():
        wide[0].weight[3:] = network()[0].weight
        wide[0].bias[3:] = network()[0].bias
    layer = compare_galleries(before, made(tmp_path / "after", wide)).layers[0]
    assert (layer.by, layer.num_units, layer.share_by_channel) == ("profile", (8, 11), None)
    assert [pair.second.index for pair in layer.pairs[:8]] == list(range(3, 11))
    assert [(pair.kind, pair.first, pair.second.index) for pair in layer.pairs[8:]] == [
        ("new", None, 0), ("new", None, 1), ("new", None, 2),
    ]  # fmt: skip
    assert layer.new == (0, 1, 2)
    assert layer.pairs[8].same_channel_is_nearest is None
    narrow = compare_galleries(tmp_path / "after", before).layers[0]
    assert [pair.kind for pair in narrow.pairs] == ["lost"] * 3 + ["kept"] * 8
    assert narrow.pairs[0].nearest_correlation == layer.pairs[8].nearest_correlation
    with pytest.raises(ConvscopeError, match=r"by='channel' for layer '0' of 8 and 11 units"):
        compare_galleries(before, tmp_path / "after", by="channel")


def test_a_double_is_no_new_feature(tmp_path, before):
    double = network((9, 12))
    with torch.no_grad():
        for mine, theirs in zip(double[0].parameters(), network()[0].parameters()):
            mine[:8], mine[8] = theirs, theirs[3]
    layer = compare_galleries(before, made(tmp_path / "after", double)).layers[0]
    assert layer.new == ()
    (alone,) = layer.pairs[8:]
    assert (alone.kind, alone.nearest, alone.second.index in (3, 8)) == ("double", 3, True)
    assert alone.nearest_correlation == pytest.approx(1, abs=1e-6)


def test_dead_units_are_told(tmp_path):
    models = [network(), network()]
    with torch.no_grad():
        models[0][0].bias[[1, 2]] = -1e3
        models[1][0].bias[[2, 5, 6]] = -1e3
    galleries = [made(tmp_path / str(number), model) for number, model in enumerate(models)]
    found = compare_galleries(*galleries)
    layer = found.layers[0]
    kinds = {2: "dead", 1: "revived", 5: "died", 6: "died"}
    assert [pair.kind for pair in layer.pairs] == [kinds.get(unit, "kept") for unit in range(8)]
    assert (layer.num_dead, layer.num_constant) == ((2, 3), (0, 0))
    assert layer.pairs[5].correlation is None
    assert layer.pairs[2].overlap is None
    assert (layer.pairs[5].change, layer.pairs[2].change) == (2, 0)
    assert set(layer.order[:3]) == {1, 5, 6}
    worse = next(finding for finding in found.findings if finding.fault == "more-dead-units")
    assert [each.value for each in worse.evidence] == [2 / 8, 3 / 8]
    assert "2 of the same channels died" in worse.why
    back = compare_galleries(*reversed(galleries))
    assert "more-dead-units" not in [f.fault for f in back.findings if f.address == layer.unit_addresses[0]]
    by_profile = compare_galleries(*galleries, by="profile").layers[0]
    alone = [(pair.kind, pair.first and pair.first.index) for pair in by_profile.pairs if pair.first is None]
    assert alone == [("new", None), *[("dead", None)] * 3]
    assert [by_profile.pairs[unit].kind for unit in (1, 2, 5)] == ["dead", "dead", "lost"]


def test_a_constant_unit_is_unknown(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 1
    one = made(tmp_path / "one", model)
    layer = compare_galleries(one, one).layers[0]
    assert layer.num_constant == (1, 1)
    assert [pair.kind for pair in layer.pairs] == ["kept", "kept", "unknown", "kept"]


def test_one_image_compares_numbers_alone(tmp_path):
    one = made(tmp_path / "one", network(), pixels(1))
    other = made(tmp_path / "two", network(seed=1), pixels(1))
    found = compare_galleries(one, other)
    for layer in found.layers:
        assert (layer.by, layer.chance, layer.share_matched, layer.lost) == ("channel", None, None, ())
        assert all(pair.correlation is None for pair in layer.pairs)
    assert "few-images" in [finding.fault for finding in found.findings]
    assert str(found)


def test_strongest_images_overlap_by_jaccard(tmp_path, before):
    after = made(tmp_path / "after", network(seed=0, kernel=3).eval(), top=4)
    with torch.no_grad():
        other = network()
        other[0].weight.add_(0.3 * other[0].weight.std() * torch.randn_like(other[0].weight))
    changed = made(tmp_path / "changed", other, top=7)
    layer = compare_galleries(after, changed, by="channel").layers[0]
    for pair in layer.pairs:
        mine, theirs = (
            {example.image for example in found.layers[0].units[pair.first.index].examples[:4]}
            for found in (after, changed)
        )
        assert pair.overlap == len(mine & theirs) / len(mine | theirs)
    assert len({pair.overlap for pair in layer.pairs}) > 1


def test_numbers_are_those_of_the_galleries(tmp_path, before):
    after = made(tmp_path / "after", network(seed=4))
    layer = compare_galleries(before, after, by="channel").layers[1]
    for pair in layer.pairs:
        for side, found in ((pair.first, before), (pair.second, after)):
            unit = found.layers[1].units[side.index]
            for name in ("dead", "near_dead", "always_on", "maximum", "minimum", "mean", "active_images"):
                assert getattr(side, name) == getattr(unit, name), name
            assert side.active_positions == unit.active_positions
            assert side.selectivity == (unit.scores.selectivity if unit.scores else None)


def test_layers_meet_by_name_by_order_or_as_stated(tmp_path, before):
    class Named(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.early, self.late = base[0], base[2]

        def forward(self, x):
            return self.late(self.early(x).relu()).relu()

    named = made(tmp_path / "named", Named(network()))
    found = compare_galleries(before, named)
    assert (found.layers_by, [layer.names for layer in found.layers]) == (
        "order", [("0", "early"), ("2", "late")],
    )  # fmt: skip
    assert [layer.share_matched for layer in found.layers] == [1, 1]
    stated = compare_galleries(before, named, layers={"2": "early"})
    assert [layer.names for layer in stated.layers] == [("2", "early")]
    assert len(stated.left_out) == 2
    part = made(tmp_path / "part", network(), layers=["2"])
    shared = compare_galleries(before, part)
    assert (shared.layers_by, [layer.names for layer in shared.layers]) == ("name", [("2", "2")])
    assert shared.left_out == ("0 (first gallery): no partner in the other one",)
    for wrong, said in (
        ({"9": "early"}, "layer '9', which the gallery in .*before"),
        ({"0": "9"}, "layer '9', which the gallery in .*named"),
        ({"0": "early", "2": "early"}, "twice"),
        ({}, "layers="),
    ):
        with pytest.raises(ConvscopeError, match=said):
            compare_galleries(before, named, layers=wrong)


def test_aliased_shares_of_the_stems_stand_beside(tmp_path):
    images = torch.randn(12, 3, 33, 35)
    models = [network(kernel=5), network(kernel=3, seed=5)]
    galleries = [made(tmp_path / str(n), model, images) for n, model in enumerate(models)]
    stems = tuple(stem(model, images) for model in models)
    found = compare_galleries(*galleries, stems=stems)
    assert found.layers[0].aliased_shares == tuple(each.aliased_share for each in stems)
    assert found.layers[1].aliased_shares is None
    for pair in found.layers[0].pairs:
        for side, diagnosis in zip((pair.first, pair.second), stems):
            assert side is None or side.aliased_share == diagnosis.filters[side.index].aliased_share
    assert "Aliased" in str(found)
    assert compare_galleries(*galleries).layers[0].aliased_shares is None
    with pytest.raises(ConvscopeError, match="no layer of the gallery"):
        compare_galleries(*galleries, stems=(stems[0], stem(network((7, 3)), images)))
    with pytest.raises(ConvscopeError, match="aren't two"):
        compare_galleries(*galleries, stems=(stems[0],))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            pixels() + 1,
            "60 of 15×17 pixels in both .*before' and .*other', but other files, .* normalisation",
        ),
        (pixels(59), "60 of 15×17 pixels in .*before', 59 of 15×17 pixels in .*other'"),
        (pixels()[..., :13, :], "60 of 15×17 pixels in .*before', 60 of 13×17 pixels in .*other'"),
    ],
)
def test_galleries_of_other_images_are_refused(tmp_path, before, images, said):
    made(tmp_path / "other", network(), images)
    with pytest.raises(ConvscopeError, match=f"different images: {said}") as caught:
        compare_galleries(before, tmp_path / "other")
    assert "of_pictures(folder, loaded.preprocessing)" in str(caught.value)


def test_a_gallery_of_an_earlier_version_is_refused(before):
    _write(Path(before.folder), lambda index: index.pop("digest"))
    with pytest.raises(ConvscopeError, match=r"an earlier version made it.*make the gallery again"):
        compare_galleries(before.folder, before.folder)


def test_a_digest_is_that_of_numbers_and_pictures(tmp_path, before):
    again = made(tmp_path / "again", network())
    assert again.digest == before.digest
    others = made(tmp_path / "weights", network(seed=1)), made(tmp_path / "rule", network(), rule="gradient")
    assert len({before.digest, *(other.digest for other in others)}) == 3
    assert compare_galleries(before, others[0]).digests == (before.digest, others[0].digest)


def test_what_chance_and_losses_mean_is_said_for_each_way_of_matching(tmp_path):
    one = made(tmp_path / "one", network((24, 40), 1))
    other = made(tmp_path / "other", network((24, 40), 2))
    for by, meant, severity in (
        ("profile", "nearest of all units", "info"), ("channel", "own channel", "advice"),
    ):  # fmt: skip
        found = compare_galleries(one, other, by=by)
        lost = [finding for finding in found.findings if finding.fault == "lost-features"]
        assert [finding.severity for finding in lost] == [severity] * 2
        assert [finding.evidence[0].value for finding in lost] == [len(layer.lost) for layer in found.layers]
        assert ("trained independently" in lost[0].why) == (by == "profile")
        shown = " ".join(str(found).split())
        assert "chance: the correlation that 1 in 20 unrelated units exceeds: by " + by in shown
        assert meant in shown
        assert ("by channel, with" in shown) != ("by profile, with" in shown)


def test_nothing_changed_is_said_only_then(tmp_path, before):
    found = compare_galleries(before, made(tmp_path / "again", network()))
    assert found.is_unchanged
    assert "nothing changed" in str(found)
    assert "for the worse" not in str(found)
    better = network()
    with torch.no_grad():
        better[0].weight.mul_(1.5)
    found = compare_galleries(before, made(tmp_path / "better", better))
    assert not found.is_unchanged
    assert "nothing changed for the worse" in str(found)
    part = made(tmp_path / "part", network(), layers=["2"])
    assert not compare_galleries(before, part).is_unchanged


def test_the_batch_size_does_not_matter(tmp_path, before):
    after = made(tmp_path / "after", network(), ImageSource(pixels(), batch_size=7))
    assert [layer.share_matched for layer in compare_galleries(before, after).layers] == [1, 1]


def _cut(folder, name, length):
    (folder / name).write_bytes((folder / name).read_bytes()[:length])


def _write(folder, change):
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def _without(folder, *names):
    tensors = load_file(folder / "units.safetensors")
    save_file({n: t for n, t in tensors.items() if n not in names}, folder / "units.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "units.safetensors").unlink(),
        lambda folder: _cut(folder, "index.json", 100),
        lambda folder: _cut(folder, "units.safetensors", 1000),
        lambda folder: _cut(folder, "units.safetensors", 0),
        lambda folder: (folder / "index.json").write_text("[1, 2]"),
        lambda folder: (folder / "index.json").write_text('{"layers": []}'),
        lambda folder: (folder / "index.json").write_text('"layers"'),
        lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / "index.json").write_text("[" * 100_000),
        lambda folder: _write(folder, lambda index: index["layers"].pop(0)),
        lambda folder: _write(folder, lambda index: index["layers"].append(index["layers"][0])),
        lambda folder: _write(folder, lambda index: index["layers"][0].update(name=3)),
        lambda folder: _write(folder, lambda index: index["layers"][0].update(map_size=None)),
        lambda folder: _write(folder, lambda index: index.update(top="nine")),
        lambda folder: _write(folder, lambda index: index.pop("images_fingerprint")),
        lambda folder: _without(folder, "0.profile", "profile_images"),
        lambda folder: _without(folder, "1.maximum"),
    ],
)
def test_damaged_and_foreign_folders_are_refused(tmp_path, before, damage):
    folder = tmp_path / "copy"
    shutil.copytree(before.folder, folder)
    damage(folder)
    with pytest.raises(ConvscopeError, match="where no whole gallery can be read") as caught:
        compare_galleries(before, folder)
    assert "\n" not in str(caught.value)


def test_a_result_whose_folder_was_replaced_is_refused(tmp_path, before):
    made(before.folder, network(seed=1))
    with pytest.raises(ConvscopeError, match="holds another one now"):
        compare_galleries(before, before.folder)


@pytest.mark.parametrize(("options", "said"), [({"by": "name"}, "by='name'"), ({"layers": 3}, "layers=3")])
def test_wrong_options_are_refused(before, options, said):
    with pytest.raises(ConvscopeError, match=said):
        compare_galleries(before, before, **options)
    with pytest.raises(ConvscopeError, match="a int"):
        compare_galleries(before, 3)


def test_the_command_prints_the_same(tmp_path, before, capsys):
    made(tmp_path / "after", network(seed=1))
    folders = [before.folder, str(tmp_path / "after")]
    main(["gallery-compare", *folders, "--json"])
    found = compare_galleries(*folders)
    assert json.loads(capsys.readouterr().out) == json.loads(found.to_json())
    assert isinstance(found, GalleryComparison)
    main(["gallery-compare", *folders, "--layers", "0=0", "--by", "channel"])
    shown = capsys.readouterr().out
    assert "by channel" in shown
    assert "Changed most" in shown
    assert "left out: 2 (first gallery)" in shown
    for wrong in ("0", "0=0,0=2", "=0"):
        with pytest.raises(SystemExit):
            main(["gallery-compare", *folders, "--layers", wrong])
        assert "--layers" in capsys.readouterr().err


def test_without_statistics_the_rest_is_compared(tmp_path, before):
    bare = gallery(network(), pixels(), out=tmp_path / "bare", options=GalleryOptions(statistics=False))
    layer = compare_galleries(before, bare).layers[0]
    assert layer.num_always_on == (0, None)
    assert layer.pairs[0].second.mean is None
    assert layer.share_matched == 1

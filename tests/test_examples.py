"""Examples run, and what their docstrings say they measured is what they measure."""

import importlib.util
from pathlib import Path

import pytest
import torch

import convscope as cs

EXAMPLES = Path(__file__).parents[1] / "examples"


def _module(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_weights_of_efficientnet_lite_are_judged_as_by_hand():
    pytest.importorskip("efficientnet_lite_pytorch")
    example = _module("efficientnet_checkup")
    model, pixels = example.network(), example.crops()
    # Half of what the docstring reports on: what it says of severities holds there, too.
    batches = example.as_trained(pixels[:60]).split(example.BATCH)
    found = cs.checkup(model, batches)
    assert {finding.severity for finding in found.findings} == {"advice"}
    layers = {layer.path: layer for layer in found.layers}
    for path in ("_bn0", "_blocks.1._bn1", "_blocks.6._bn1", "_blocks.14._bn1", "_bn1"):
        mean, variance, dead = example.by_hand(model, path, batches)
        assert layers[path].mean_residual == pytest.approx(mean, rel=1e-3)
        assert layers[path].variance_residual == pytest.approx(variance, rel=1e-3)
        if layers[path].dead_channels is not None:
            assert layers[path].dead_channels == dead

    # The residual of the first layer tells which preprocessing the weights were made for.
    wrong = cs.checkup(model, example.as_usual(pixels[: example.BATCH]))
    first = wrong.findings[0]
    assert (first.fault, first.severity, first.address) == ("stale-statistics", "error", "_bn0#1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_efficientnet_example_runs(capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    example = _module("efficientnet_checkup")
    example.PER_PHOTOGRAPH, example.BATCH = 2, 10
    example.main()
    printed = capsys.readouterr().out
    assert "Without data" in printed
    assert "ImageNet's mean" in printed


@pytest.fixture
def sight_example(monkeypatch):
    """The example, with one crop of each photograph."""
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = _module("efficientnet_sight")
    monkeypatch.setattr("efficientnet_checkup.PER_PHOTOGRAPH", 1)
    return example


@torch.no_grad()
def _maps_by_hand(model, norm, images):
    """Maps behind a batch norm and the ReLU6 after it, (images, channels, height, width)."""
    found = []
    hook = norm.register_forward_hook(lambda _, __, output: found.append(output.clamp(0, 6)))
    model(images)
    hook.remove()
    return found[0]


@pytest.mark.slow
def test_the_strongest_crops_of_units_with_real_weights_are_those_found_by_hand(sight_example, tmp_path):
    model, images = sight_example.network(), sight_example.as_trained(sight_example.crops())
    layers = sight_example.LAYERS[:2]
    found = cs.gallery(model, images, layers=layers, out=tmp_path / "gallery")
    assert found.rule == "gated"
    dead = []
    for layer, norm in zip(found.layers, (model._bn0, model._blocks[1]._bn1), strict=True):
        maps = _maps_by_hand(model, norm, images)
        num_silent = num_tied = 0
        for unit, own in zip(layer.units, maps.transpose(0, 1), strict=True):
            values = own.flatten(1).max(1).values.tolist()
            order = sorted((-value, image) for image, value in enumerate(values) if value > 0)[:9]
            assert [example.image for example in unit.examples] == [image for _, image in order]
            assert [example.value for example in unit.examples] == pytest.approx([-v for v, _ in order])
            for example in unit.examples:
                place = int(own[example.image].flatten().argmax())
                assert example.position == divmod(place, own.shape[-1])
            num_silent += not order
            num_tied += len(order) == 9 and order[0][0] == order[-1][0]
        assert (len(layer.dead), sight_example.tied(layer)) == (num_silent, num_tied)
        dead.append(num_silent)
    assert dead[0] == 4  # filters whose weights are as good as zero
    assert (model._conv_stem.weight.flatten(1).norm(dim=1) < 1e-6).sum() == 4

    _check_masking_drops(model, found.layers[0], images)


def _check_masking_drops(model, stem, images):
    """A tenth of nine pixels is one: the filter's strongest; the random one is any of the nine."""
    strength = model._conv_stem.weight.abs().sum(1).flatten(1)
    checked = 0
    for unit in stem.units:
        if not unit.examples or unit.examples[0].box.height * unit.examples[0].box.width < 9:
            continue
        best = unit.examples[0]
        copies = images[best.image].repeat(10, 1, 1, 1)
        grey = images[best.image].mean((1, 2))
        for pixel in range(9):
            copies[pixel, :, best.box.top + pixel // 3, best.box.left + pixel % 3] = grey
        y, x = best.position
        after = _maps_by_hand(model, model._bn0, copies)[:, unit.index, y, x]
        drops = (1 - after[:9] / after[9]).tolist()
        expected = [drops[int(strength[unit.index].argmax())] - drop for drop in drops]
        assert min(abs(unit.scores.masking_drop - each) for each in expected) < 1e-5
        checked += 1
    assert checked > 10


@pytest.mark.slow
def test_the_deconvnet_is_refused_for_relu6_and_ignores_the_image_with_relu(sight_example):
    model, images = sight_example.network(), sight_example.as_trained(sight_example.crops())
    assert "hardtanh at _swish#1:hardtanh.1" in sight_example.refusal(model, images[0])
    twin = sight_example.with_relu(model)
    views = [cs.project(twin, image, "_blocks.1._swish#2", 3, "deconvnet", (9, 9)) for image in images[:2]]
    torch.testing.assert_close(views[0].image, views[1].image, rtol=1e-5, atol=0)
    assert views[0].scores.image_dependence == pytest.approx(0, abs=1e-6)
    label, probability, unit = sight_example.decisive(model, images[0])
    with torch.no_grad():
        scores = model(images[:1])
        maps, weights = _maps_by_hand(model, model._bn1, images[:1]), model._fc.weight[label].detach()
    assert label == scores.argmax()
    assert probability == pytest.approx(float(scores.softmax(1).max()))
    assert unit == max(range(1280), key=lambda each: float(weights[each] * maps[0, each].mean()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_of_sight_with_real_weights_runs(sight_example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sight_example, "LAYERS", sight_example.LAYERS[:3])
    monkeypatch.setattr(sight_example, "JUDGED", 2)
    sight_example.main(str(tmp_path / "gallery"))
    printed = capsys.readouterr().out
    for words in ("image dep.", "gated of unit", "With ReLU for ReLU6: deconvnet", "First layer _conv_stem"):
        assert words in printed

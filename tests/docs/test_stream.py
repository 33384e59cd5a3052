"""The picture of gauges says what is true of both networks, and is the committed one."""

import re
from pathlib import Path

import pytest
import torch

import stream

FIGURES = Path(stream.__file__).with_name("figures")


def shown(panel):
    """What one panel shows: layers as functions, norms as functions, gauges, texts."""
    picture = stream.stream_picture()
    group = re.search(rf'<g data-panel="{panel}".*?</g>', picture, re.DOTALL).group(0)
    layers = {
        name: tuple(map(float, numbers.split()))
        for name, numbers in re.findall(r'data-layer="(\w+)" data-numbers="([^"]+)"', group)
    }
    gauges = {
        name: tuple(map(float, numbers.split()))
        for name, numbers in re.findall(r'data-value="(\w+)" data-gauge="([^"]+)"', group)
    }
    return layers, gauges, group


def values(layers, norms, x):
    """All values of the network on one number, in plain arithmetic."""
    found = {"stem": layers["stem"][0] * x + layers["stem"][1]}
    on = found["stem"]
    for number in (1, 2):
        scale, shift = norms[number - 1]
        found[f"norm{number}"] = scale * on + shift
        found[f"relu{number}"] = max(found[f"norm{number}"], 0.0)
        weight, bias = layers[f"conv{number}"]
        found[f"conv{number}"] = weight * found[f"relu{number}"] + bias
        found[f"add{number}"] = on = on + found[f"conv{number}"]
    found["norm3"] = norms[2][0] * on + norms[2][1]
    found["relu3"] = max(found["norm3"], 0.0)
    found["head"] = layers["head"][0] * found["relu3"] + layers["head"][1]
    return found


@pytest.mark.parametrize("x", [-7.5, -1.0, -0.3, 0.0, 0.4, 2.0, 11.0])
def test_gauges_are_true_of_what_the_panels_show(x):
    before = values(shown("before")[0], stream.NORMS, x)
    layers, gauges, _ = shown("folded")
    after = values(layers, ((1.0, 0.0),) * 3, x)
    assert set(gauges) >= {"stem", "relu1", "conv1", "add1", "relu2", "conv2", "add2", "relu3", "head"}
    for name, (scale, shift) in gauges.items():
        assert after[name] == pytest.approx(scale * before[name] + shift, abs=1e-12), name
    assert after["head"] == pytest.approx(before["head"], abs=1e-12)


def test_the_network_before_is_the_one_that_is_folded():
    model = stream.Stream().double().eval()
    x = torch.tensor(1.7, dtype=torch.float64)
    assert model(x.view(1, 1, 1, 1)).item() == pytest.approx(values(stream.LAYERS, stream.NORMS, 1.7)["head"])


def test_texts_are_the_numbers_and_fit_their_boxes():
    for panel in ("before", "folded"):
        layers, gauges, group = shown(panel)
        boxes = re.findall(r'<rect class="\w+" x="\d+" y="\d+" width="(\d+)".*?>\n<text[^>]*>([^<]*)<', group)
        assert [text for _, text in boxes if text != "ReLU"][:1] == [stream.linear(*layers["stem"], "x")]
        assert all(7.2 * len(text) <= float(width) for width, text in boxes)
        labels = re.findall(r'<text class="gauge"[^>]*>([^<]*)<', group)
        told = [stream.linear(*gauge, "v") for gauge in gauges.values() if gauge != (1.0, 0.0)]
        assert labels == told
    assert "data-norm" not in shown("folded")[2]


def test_the_committed_picture_is_the_one_that_is_drawn():
    assert (FIGURES / "fold-gauges.svg").read_text() == stream.stream_picture()

"""Commands about what units see say so where the weights were never trained."""

import pytest
import torch
from PIL import Image
from torch import nn

from convscope.cli.main import main
from convscope.networks import save_weights

NET = """
from torch import nn
def build():
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*layers), (1, 3, 16, 16)
"""
COMMANDS = {
    "gallery": "gallery NETWORK --data mine --top 1 --judge 0",
    "stem": "stem NETWORK --data mine",
    "invariance": "invariance NETWORK --data mine --scale none --rotation none --translation 1",
    "occlusion": "occlusion NETWORK mine/a.png --window 8",
    "project": "project NETWORK mine/a.png --layer LAYER --unit 1",
}


@pytest.fixture
def told(capsys, tmp_path, monkeypatch):
    """Run a command in a folder with a network and two pictures: its lines about weights, and all of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "mine").mkdir()
    for name in "ab":
        Image.effect_noise((20, 20), 60).convert("RGB").save(tmp_path / "mine" / f"{name}.png")

    def run(command, network="net.py:build", layer="0", more=""):
        main(f"{COMMANDS[command]} {more}".replace("NETWORK", network).replace("LAYER", layer).split())
        err = capsys.readouterr().err
        return [line for line in err.splitlines() if " weights" in line and "unfinished" not in line], err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_callable_s_own_weights_are_told_once_and_quietly_not(command, told):
    assert told(command)[0] == [
        "net.py:build has the weights that its code gave it, random ones unless it loads some: "
        "give trained ones with --weights"
    ]
    assert told(command, more="--quiet")[1] == ""


@pytest.mark.parametrize("command", ["stem", "project"])
def test_nothing_is_told_of_weights_that_were_given(command, told):
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    torch.manual_seed(0)
    save_weights(nn.Sequential(*layers), "w.safetensors")
    assert told(command, more="--weights w.safetensors")[0] == []


def test_a_named_network_s_weights_are_random(told):
    network = "zfnet --width 0.0625 --input 3x67x67"
    assert told("project", network, "features.relu1")[0] == [
        "zfnet has random weights: give trained ones with --weights"
    ]

"""What is always there where bad inputs are tried: a small network, its weights, pictures."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fuzz.trial import Workplace

NETWORK = """
from torch import nn


def build(num_classes=2, width=1.0, norm=None, variant=None):
    if num_classes < 1:
        raise ValueError("no classes")
    channels = max(1, min(8, int(4 * width)))
    return nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, num_classes),
    ), (1, 3, 16, 16)
"""


@pytest.fixture
def folder(tmp_path):
    """A network that trains in a moment, its weights, a picture, and six pictures of two classes."""
    torch.manual_seed(0)
    (tmp_path / "net.py").write_text(NETWORK)
    made: dict[str, object] = {}
    exec(NETWORK, made)
    network, _ = made["build"]()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    for label in "ab":
        for number in range(4):
            file = tmp_path / "pictures" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((16, 16), 60 + 40 * (label == "b")).convert("RGB").save(file)
    Image.effect_noise((20, 16), 80).convert("RGB").save(tmp_path / "picture.png")
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    return tmp_path


@pytest.fixture
def place(folder):
    return Workplace(folder)

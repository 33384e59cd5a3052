"""A tiny network and a folder of tiny pictures that a comparison trains on in a moment."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

NETWORK = """
from torch import nn


def build(norm="none", hidden=6, num_classes=3, fails=False, unused=0):
    if fails and num_classes == 3:
        raise RuntimeError("asked to fail")
    layers = [nn.Flatten(), nn.Linear(48, hidden, bias=norm == "none")]
    if norm == "batch":
        layers.append(nn.BatchNorm1d(hidden))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(hidden, num_classes)), (1, 3, 4, 4)


def loud(num_classes=3):
    print("what a user's code prints")
    return build(num_classes=num_classes)


def deadly(num_classes=3):
    model, shape = build(num_classes=num_classes)

    class Deadly(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = model, 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 30:
                import os
                os._exit(7)
            return self.inner(x)

    return Deadly(), shape
"""


def pictures(folder: Path) -> Path:
    """Three classes of 4×4 pictures, 12 of each for training and 6 for validation."""
    random.seed(3)
    generator = np.random.default_rng(3)
    for split, number in (("train", 12), ("validation", 6)):
        for label in range(3):
            place = folder / split / "abc"[label]
            place.mkdir(parents=True)
            for index in range(number):
                pixels = generator.integers(0, 180, (4, 4, 3))
                pixels[..., label] += 75
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")
    return folder


def made(folder: Path) -> tuple[str, str]:
    """Write the network and the pictures; return their references."""
    (folder / "net.py").write_text(NETWORK)
    return f"{folder / 'net.py'}:build", str(pictures(folder / "pictures"))


SETTINGS = {"epochs": 3, "batch_size": 12, "schedule": "constant"}

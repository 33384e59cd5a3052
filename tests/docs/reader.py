"""What someone who tries a page's commands has at hand: pictures, a network, weights, galleries."""

import doctest
import re
import shutil

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from skimage import data, io

from convscope.cli.main import main
from docs.commands import DOCS

NETWORK = '''"""A network of the reader's own, for four classes."""

from torch import nn


def build():
    maps = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(8, 4)), (1, 3, 20, 20)
'''


def make(folder):
    """Write into a folder, from within it, all that no page's commands make but some read."""
    _pictures(folder)
    (folder / "net.py").write_text(NETWORK)
    scope = {}
    exec(NETWORK, scope)
    torch.save(scope["build"]()[0].state_dict(), folder / "best.pth")
    for words in (
        "train zfnet --norm batch --width 0.05 --input 3x64x64 --data photos "
        "--epochs 2 --keep-epochs 1 --out made",
        "fold zfnet --weights made/final.safetensors --out folded.safetensors",
        "gallery zfnet --weights made/epoch-1.safetensors --data pictures --judge 0 --out before",
        "gallery zfnet --weights made/final.safetensors --data pictures --judge 0 --out after",
    ):
        main(words.split())
    shutil.copy("made/epoch-1.safetensors", "before.safetensors")
    shutil.copy("made/final.safetensors", "after.safetensors")
    _stale("made/final.safetensors", "w.safetensors")
    shutil.rmtree("made")


def _stale(trained, written):
    """Write weights whose first batch norm has nine times its variance, as after a change of data."""
    with safe_open(trained, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(trained)
    tensors["features.norm1.running_var"] *= 9
    save_file(tensors, written, metadata)


def _pictures(folder):
    photographs = {
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "eye": data.retina(),
        "face": data.astronaut(),
    }
    io.imsave(folder / "cat.jpg", photographs["cat"])
    io.imsave(folder / "photo.jpg", photographs["face"])
    for name, photograph in photographs.items():
        (folder / "pictures" / name).mkdir(parents=True)
        start = np.array(photograph.shape[:2]) // 4
        for number in range(12):
            y, x = start + 8 * number
            path = folder / "pictures" / name / f"{number:02}.png"
            io.imsave(path, photograph[y : y + 96, x : x + 96], check_contrast=False)


def add_files_of(page, folder, shorter):
    """Write the files that a page gives itself: a table of trainings, a rule in a network's file."""
    text = page.read_text(encoding="utf-8")
    if page == DOCS / "comparing.md":
        (table,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        (folder / "table.toml").write_text(shorter(table))
    if page == DOCS / "extending" / "fault.md":
        (block, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        examples = doctest.DocTestParser().get_examples(block)
        (folder / "my_rules.py").write_text("".join(example.source for example in examples))
        (folder / "net.py").write_text(
            NETWORK.replace("from torch", "import my_rules  # noqa: F401\nfrom torch")
        )
    if page.parent == DOCS / "tour":
        shutil.copy(page.parent / "networks.py", folder)

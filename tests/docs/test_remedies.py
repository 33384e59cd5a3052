"""The calls that pages recommend for normalisation run as they stand there, and names in tables are there."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import convscope as cs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "normalisation.md").read_text()
REMEDIES = PAGE.partition("## Which tool for which trouble")[2].partition("\n## ")[0]
README = (ROOT / "README.md").read_text()


def calls(text):
    """The calls of normalisation's tools in a page's tables."""
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    return re.findall(r"`((?:cs\.norm\.|layer|print)[\w.]*\(.*?\))`", rows)


NORM_CALLS = list(dict.fromkeys([*calls(REMEDIES), *calls(README)]))


def network():
    model = nn.Sequential()
    for name in ("backbone", "layer3"):
        model.add_module(name, nn.Sequential(nn.LazyConv2d(8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model(torch.randn(4, 3, 8, 8))
    return model


def test_there_are_calls_to_test():
    assert len(NORM_CALLS) > 10
    assert {ast.parse(call, mode="eval").body.func.attr for call in NORM_CALLS if call.startswith("cs.")} >= {
        "recalibrate", "freeze", "convert", "correct_momentum",
    }  # fmt: skip


@pytest.mark.parametrize("call", NORM_CALLS)
def test_a_recommended_call_runs(call):
    images = torch.randn(12, 3, 8, 8)
    names = {
        "cs": cs,
        "model": network(),
        "images": images,
        "inputs": tuple(images.shape),
        "loader": [(part, torch.zeros(4, dtype=torch.int64)) for part in images.split(4)],
        "layer": cs.norm.BatchNorm2d(3),
        "x": images,
        "mask": torch.rand(12, 8, 8) > 0.5,
    }
    result = eval(call, names)
    assert call.startswith("print(") or result is not None
    if "convert" in call:
        assert result.refused == 0
        assert result.converted == (0 if '"torch"' in call else 2)


def test_every_folder_of_the_room_is_in_the_architecture_and_the_other_way_round():
    text = (ROOT / "docs" / "architecture.md").read_text()
    lines = re.search(r"  norm/ .*\n((?:    .*\n)+)", text).group(1)
    told = set(re.findall(r"^    (\w+)/", lines, re.MULTILINE))
    assert told == {path.parent.name for path in (ROOT / "src/convscope/norm").glob("*/__init__.py")}


def test_the_glossary_is_in_order_and_says_each_word_once():
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = re.findall(r"^\| ([^|]+?) +\|", text, re.MULTILINE)[1:]
    assert words == sorted(set(words), key=str.lower)

"""What commands wrote and others read: galleries, reports and comparisons whose files were altered."""

import json

import pytest
from hypothesis import strategies as st

from fuzz.damage import altered, damaged
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case, Workplace, typed

NET = "net.py:build"
WRITTEN = (
    ("gallery", NET, "--data", "pictures", "--layers", "2", "--top", "2", "--judge", "0", "--out", "gallery"),
    ("report", NET, "--data", "pictures", "--no-train", "--out", "page"),
    ("compare", NET, "--data", "pictures", "--choose", "learning_rate=0.1,0.01", "--seeds", "1", "--set",
    "epochs=1",
     "--processes", "0", "--threads", "1", "--out", "compared"),
)  # fmt: skip
READ = {
    "gallery/index.json": ("gallery-compare", "gallery", "gallery"),
    "gallery/units.safetensors": ("gallery-compare", "gallery", "gallery"),
    "page/report.json": ("report", "page", "page", "--out", "both"),
    "page/gallery/index.json": ("report", "page", "page", "--out", "both"),
    "compared/table.json": WRITTEN[2],
    "compared/comparison.json": WRITTEN[2],
    "classes.txt": ("cost", NET, "--classes", "classes.txt"),
    "classes.json": ("cost", NET, "--classes", "classes.json"),
}


@pytest.fixture
def written(folder, monkeypatch):
    """A gallery, a report and a comparison, as they were written."""
    monkeypatch.chdir(folder)
    (folder / "classes.json").write_text('["one", "two"]')
    for words in WRITTEN:
        outcome = typed(words)
        assert outcome.code == 0, outcome
    return folder


@st.composite
def lines(draw, folder):
    """A command that reads one altered file."""
    name = draw(st.sampled_from(sorted(READ)))
    content = (folder / name).read_bytes()
    ways = damaged(content)
    if name.endswith(".json"):
        ways = altered(json.loads(content)).map(lambda value: json.dumps(value).encode()) | ways
    return Case(READ[name], {name: draw(ways)}, "compared")


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(written, share):
    refused("test_read_back", lines(written), Workplace(written), share)

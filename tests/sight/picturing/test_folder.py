"""A gallery replaces an older gallery, and nothing else."""

import json

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import gallery


class Unseen(nn.Module):
    """Fails when it is run: nothing may be looked at before the folder is known to be free."""

    def forward(self, x):
        raise AssertionError("it was run")


def draw(folder, layers="all"):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    return gallery(net, torch.rand(3, 1, 8, 8), layers=layers, top=1, out=folder)


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


FOREIGN = {
    "a thesis": {"thesis.txt": "years of work"},
    "a folder in it": {"sub/file": "x"},
    "a web site": {"index.json": "{}", "gallery.js": ""},
    "another index": {"index.json": json.dumps({"layers": [], "index": "a", "script": "b"})},
    "a list": {"index.json": "[1]"},
    "no JSON": {"index.json": "{"},
    "hidden files": {".git/HEAD": "ref"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=list(FOREIGN))
def test_folders_with_other_files_are_refused_before_anything_runs(tmp_path, files):
    folder = tmp_path / "home"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(ConvscopeError, match=r"home' holds other files .*; expected a new folder") as caught:
        gallery(Unseen(), torch.rand(2, 1, 8, 8), out=folder)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_an_older_gallery_is_replaced_unless_something_was_put_beside_it(tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir()
    draw(folder)
    assert len(list(folder.iterdir())) == 4 + 2 * 2
    draw(folder, layers="2")
    assert sorted(path.name for path in folder.iterdir()) == [
        "000-2-patches.webp", "000-2-projections.webp", "gallery.js", "index.html", "index.json",
        "units.safetensors",
    ]  # fmt: skip
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    with pytest.raises(ConvscopeError, match=r"notes\.txt"):
        draw(folder)
    assert contents(folder) == before


def test_a_file_in_the_way_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", str(tmp_path / "file" / "below")):
        with pytest.raises(ConvscopeError, match="written"):
            gallery(Unseen(), torch.rand(2, 1, 8, 8), out=out)

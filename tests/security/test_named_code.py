"""``file.py:callable`` runs the file that the user named and what that file imports, and says so.

Elsewhere: that the search path and a package of the file's name stay as they were, and that broken files are
named, in tests/networks/test_code.py.
"""

import sys
from contextlib import suppress
from pathlib import Path

import pytest

import convscope
from convscope.core.errors import ConvscopeError
from convscope.networks import load

ROOT = Path(__file__).parents[2]
NET = "from torch import nn\nimport wanted\n\ndef build():\n    return nn.Linear(4, 2), (1, 4)\n"


@pytest.fixture
def folder(tmp_path):
    """A network, a file that it imports, and files that nobody named, each of which leaves a trace."""
    trace = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for name in ("net", "wanted", "other", "setup", "conftest", "sitecustomize", "__init__", "convscope"):
        (tmp_path / f"{name}.py").write_text(trace + (NET if name == "net" else ""))
    (tmp_path / "startup.pth").write_text("import os; os.mkdir('pth')\n")
    yield tmp_path
    sys.modules.pop("wanted", None)


def test_only_the_named_file_and_its_imports_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for reference in ("net.py:build", f"{folder}/net.py:build"):
        assert load(reference).inputs == (1, 4)
    assert {path.stem for path in folder.glob("*.ran")} == {"net", "wanted"}
    assert not (folder / "pth").exists()
    assert convscope is sys.modules["convscope"]


@pytest.mark.parametrize("words", ["net.py", "net", "./net.py", "other.py"])
def test_nothing_runs_without_a_callable_being_named(folder, monkeypatch, words):
    monkeypatch.chdir(folder)
    with suppress(ConvscopeError):
        load(words)
    assert not list(folder.glob("*.ran"))


def test_names_of_data_and_weights_run_nothing(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for given in ({"weights": "net.py"}, {"classes": "net.py"}, {"weights": "net.py:build"}):
        with suppress(ConvscopeError):
            load("zfnet", width=0.0625, input_shape=(3, 67, 67), **given)
    assert not list(folder.glob("*.ran"))


def test_the_documentation_says_that_it_runs():
    told = " ".join((ROOT / "LIMITATIONS.md").read_text(encoding="utf-8").split())
    assert "References to code (`module:callable`, `file.py:callable`) run that code" in told
    assert "**runs the file**" in load.__doc__
    assert "**runs the program**" in load.__doc__

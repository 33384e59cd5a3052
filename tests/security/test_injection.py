"""Names of layers, networks and files that a spreadsheet, a terminal or a CI service might obey.

Elsewhere: elements of HTML from names, in tests/report/pages (test_fields.py, test_report.py,
test_checkup.py, test_fold.py, test_sweep.py, in Chromium test_browser.py) and in test_notebook.py;
characters that XML doesn't have, in tests/gate/test_junit.py; each terminal table, in tests/report/terminal;
names of damaged files, in tests/data/test_damage.py.
"""

import csv
import io
import json
from xml.etree import ElementTree

import pytest

from convscope.cli.main import main
from convscope.core.printable import printable
from convscope.cost.views.csv_table import csv_text

CODES = "\x1b[2J\x1b]0;title\x07\x08\x9b31m\u202e\r"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1+1", "\r=1+1", "\n=1+1", "=cmd|' /C calc'!A0"]
NET = f"""
from torch import nn

NAMES = ["=1+1{ascii(CODES)[1:-1]}<script>", "@b", "-c\\n[red]d"]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for name, layer in zip(NAMES, (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))):
            self.add_module(name, layer)

    def forward(self, x):
        for name in NAMES:
            x = self._modules[name](x)
        return x.mean((2, 3))

def broken():
    raise ValueError({CODES!r})
"""


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Run a command's words in a folder that holds the network in a file whose name is hostile too."""
    monkeypatch.chdir(tmp_path)
    for name in ("net.py", f"net{CODES}.py"):
        (tmp_path / name).write_text(NET, encoding="utf-8")

    def typed(*words):
        try:
            main(words)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return typed


def obeyed(text):
    """What a terminal would obey in a text."""
    return {character for character in text if not character.isprintable() and character != "\n"}


SHAPE = ("--input", "3x16x16")
SHOWN = [
    ("cost", "net.py:Net", *SHAPE),
    ("cost", f"net{CODES}.py:Net", *SHAPE),
    ("cost", "net.py:Net", *SHAPE, "--csv", "-"),
    ("cost", "net.py:Net", *SHAPE, "--csv", f"{CODES}.csv"),
    ("cost", "net.py:Net", *SHAPE, "--json"),
    ("cost", "net.py:Net", "zfnet", "--inference"),
    ("checkup", f"net{CODES}.py:Net", *SHAPE),
    ("gate", f"net{CODES}.py:Net", *SHAPE, "--max-params", "1k", "--no-fault", "error"),
]
REFUSED = [
    ("cost", "net.py:broken"),
    ("cost", CODES),
    ("cost", f"{CODES}.py:x"),
    ("cost", f"{CODES}.pt2"),
    ("cost", "alexnet", f"--{CODES}"),
    ("cost", "alexnet", "--weights", f"{CODES}.pt"),
    ("cost", "alexnet", "--classes", f"{CODES}.txt"),
    ("cost", "alexnet", "--only", CODES),
    ("checkup", "alexnet", "--data", f"{CODES}dir"),
    ("checkup", "--explain", CODES),
    ("compare", f"{CODES}.toml"),
    ("gallery-compare", f"{CODES}a", f"{CODES}b"),
    (CODES,),
]


@pytest.mark.parametrize("words", SHOWN, ids=lambda words: ascii(" ".join(words)))
def test_no_name_commands_the_terminal(typed, words):
    code, out, err = typed(*words)
    assert code == 0, err
    assert not obeyed(out)
    assert not obeyed(err)


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: ascii(" ".join(words)))
def test_no_error_commands_the_terminal(typed, words):
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert not obeyed(err)


def test_json_has_the_names_as_they_are(typed):
    found = json.loads(typed("cost", "net.py:Net", *SHAPE, "--json")[1])
    assert f"=1+1{CODES}<script>#1" in {row["address"] for row in found["rows"]}


def test_the_xml_of_a_gate_reads_back(typed, tmp_path):
    words = ("--max-params", "1k", "--no-fault", "error", "--junit", "gate.xml")
    assert typed("gate", f"net{CODES}.py:Net", *SHAPE, *words)[0] == 0
    (suite,) = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert len(suite) == 2


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(name):
    _, (cell, number) = csv.reader(io.StringIO(csv_text(("name", "number"), [(name, -1)])))
    assert cell[0] == "'" or not cell.strip().startswith(("=", "+", "-", "@"))
    assert cell.lstrip("'") == printable(name)
    assert number == "-1"


def test_other_cells_stay_as_they_are():
    rows = [("conv1#1", "a-b=c+d@e", None, (3, 4), 2.5)]
    assert csv_text(("a", "b", "c", "d", "e"), rows).splitlines()[1] == "conv1#1,a-b=c+d@e,,3x4,2.5"


def test_the_cells_of_a_hostile_network(typed):
    _, out, _ = typed("cost", "net.py:Net", *SHAPE, "--csv", "-")
    cells = [cell for row in csv.DictReader(io.StringIO(out)) for cell in (row["address"], row["path"])]
    assert any(cell.startswith("'=1+1") for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]

"""``convscope gate``: exit codes and files."""

import json
from xml.etree import ElementTree

import pytest

from convscope.cli.main import main

NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), (1, 3, 10, 10)
"""


@pytest.fixture
def network(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def _gate(*words):
    try:
        main(["gate", *words])
    except SystemExit as ended:
        return ended.code
    return 0


def test_kept_limits_are_code_0(network, capsys):
    assert _gate(network, "--max-params", "240", "--no-fault", "error", "--max-unfolded", "0") == 0
    said = capsys.readouterr().out
    assert "input 1 × 3 × 10 × 10: passed" in said


def test_a_limit_that_isnt_kept_is_code_1_with_its_parts_and_xml(network, capsys, tmp_path):
    file = tmp_path / "gate.xml"
    words = ("--max-params", "239", "--max-flops", "1G", "--junit", str(file))
    assert _gate(network, *words, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["network"], found["passed"], found["checks"][0]["found"]) == (network, False, 240)
    (suite,) = ElementTree.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "0#1: 224" in suite[0].find("failure").text
    assert _gate(network, *words) == 1
    assert "params: 240" in capsys.readouterr().out


def test_data_is_checked(network, capsys):
    words = ("--no-fault", "error", "--data", "digits", "--max-batches", "2", "--batch", "8")
    code = _gate(network, *words, "--json")
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert code == (0 if check["passed"] else 1)
    assert "its data" in check["method"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a gate without limits"),
        (("--max-memory", "much"), "memory size 'much'"),
        (("--max-flops", "5X"), "count '5X'"),
        (("--max-params", "5M", "--data", "digits"), "--data without --no-fault"),
        (("--allow", "stale-statistics", "--max-params", "5M"), "without a limit on faults"),
        (("--max-memroy", "5GiB"), "--max-memory"),
        (("--max-params", "5M", "--junit", f"{__file__}/gate.xml"), "test_gate.py/gate.xml"),
    ],
)
def test_bad_words_are_one_line_and_code_2(network, capsys, words, message):
    assert _gate(network, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1

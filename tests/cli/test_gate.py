"""``convscope gate``: exit codes and files."""

import json
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file

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
    assert _gate(network, *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the gap between the losses with running and with batch statistics couldn't be measured" in said
    code = _gate(network, *words, "--json", "--allow", "unmeasured-gap")
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert code == (0 if check["passed"] else 1)
    assert "its data" in check["method"]
    assert "gap" in [each["what"] for each in check["unchecked"]]


def test_weights_that_lack_tensors_are_refused_or_told_with_the_verdict(network, capsys, tmp_path):
    weights, file = tmp_path / "w.safetensors", tmp_path / "gate.xml"
    save_file({"0.weight": torch.ones(8, 3, 3, 3), "0.bias": torch.ones(8), "old": torch.ones(1)}, weights)
    words = (network, "--weights", str(weights), "--max-params", "5M", "-q")
    assert _gate(*words) == 2
    said = capsys.readouterr().err
    assert "lack 4 tensors" in said
    assert "(1.weight, 1.bias, 1.running_mean and 1 more)" in said
    assert said.count("\n") == 1
    assert _gate(*words, "--partial-weights", "--json", "--junit", str(file)) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["weights"]
    assert found["unfilled"] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert found["unexpected"] == ["old"]
    assert "not in the file" in err
    (suite,) = ElementTree.parse(file).getroot()
    assert "of the file not in the network: old" in suite.find("system-out").text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a gate without limits"),
        (("--max-memory", "much"), "memory (--max-memory) 'much'"),
        (("--max-flops", "5X"), "flops (--max-flops) '5X'; expected a positive number"),
        (("--max-params", "1M", "--max-macs", "5GFLOPs"), "macs (--max-macs) '5GFLOPs'"),
        (("--max-memory", "24Gb"), "memory (--max-memory) '24Gb'"),
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

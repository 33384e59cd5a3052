"""What commands say of ``--weights`` that don't fit: refused, or told even when quiet."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from convscope.cli.main import main
from convscope.fold import fold
from convscope.networks import load

NETWORK = """
from torch import nn


def build(num_classes=4):
    body = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8, num_classes)), (1, 1, 8, 8)
"""


def run(*words):
    """The exit code of one command line."""
    try:
        main(list(words))
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a network, its whole weights, and the weights of the network folded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    model = load("net.py:build").model
    save_file(model.state_dict(), "whole.safetensors")
    save_file(fold(model.eval(), (1, 1, 8, 8)).model.state_dict(), "folded.safetensors")
    return tmp_path


def _without(*endings):
    tensors = load_file("whole.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.endswith(endings)}, "part.safetensors")
    return "part.safetensors"


def test_folded_weights_are_known_and_refused_by_the_network_before(place, capsys):
    capsys.readouterr()
    assert run("cost", "net.py:build", "--weights", "folded.safetensors") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "lack 4 tensors of net.py:build (1.weight, 1.bias, 1.running_mean and 1 more)" in said
    assert "of the network folded" in said


@pytest.mark.parametrize("command", ["checkup", "max-batch", "report"])
def test_every_command_refuses_them(place, capsys, command):
    words = {"max-batch": ("--memory", "2GiB"), "report": ("--data", "digits")}.get(command, ())
    assert run(command, "net.py:build", "--weights", _without("running_var"), *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "lack 1 tensor of net.py:build (1.running_var)" in said
    assert "--partial-weights" in said


def test_accepted_ones_are_told_even_when_quiet(place, capsys):
    words = ("cost", "net.py:build", "--weights", _without("running_var"), "--partial-weights", "-q")
    assert run(*words) == 0
    assert "not in the file  1.running_var" in capsys.readouterr().err


def test_lacking_counters_and_nothing_else_are_told_unless_quiet(place, capsys):
    weights = _without("num_batches_tracked")
    capsys.readouterr()
    assert run("cost", "net.py:build", "--weights", weights, "-q") == 0
    assert capsys.readouterr().err == ""
    assert run("cost", "net.py:build", "--weights", weights) == 0
    assert "1.num_batches_tracked" in capsys.readouterr().err


def test_strange_tensors_are_told_even_when_quiet(place, capsys):
    save_file({**load_file("whole.safetensors"), "old.weight": torch.ones(1)}, "more.safetensors")
    capsys.readouterr()
    assert run("cost", "net.py:build", "--weights", "more.safetensors", "-q") == 0
    assert "not in the network  old.weight" in capsys.readouterr().err


def test_a_new_head_may_be_missing_and_nothing_else(place, capsys):
    train = (
        "train",
        "net.py:build",
        "--data",
        "digits",
        "--epochs",
        "1",
        "--batch-size",
        "512",
        "--new-head",
    )
    headless = _without("5.weight", "5.bias")
    assert run(*train, "--weights", headless, "--out", "run") == 0
    capsys.readouterr()
    assert run(*train, "--weights", "folded.safetensors", "--out", "other") == 2
    assert "lack 4 tensors" in capsys.readouterr().err


NORMED = """
from torch import nn


def build(norm="none", num_classes=4):
    middle = nn.BatchNorm2d(8) if norm == "batch" else nn.Identity()
    body = nn.Conv2d(1, 8, 3), middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8, num_classes)), (1, 1, 8, 8)
"""


def test_a_report_checks_them_for_the_network_that_the_norm_makes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "normed.py").write_text(NORMED)
    tensors = load("normed.py:build", norm="batch").model.state_dict()
    save_file({name: each for name, each in tensors.items() if "running" not in name}, "part.safetensors")
    words = ("--norm", "batch", "--weights", "part.safetensors", "--data", "digits")
    assert run("report", "normed.py:build", *words) == 2
    assert "lack 2 tensors of normed.py:build (1.running_mean, 1.running_var)" in capsys.readouterr().err

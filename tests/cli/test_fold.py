"""``convscope fold`` as a user types it."""

import json

import pytest
import torch

import convscope as cs
from convscope.cli.main import main

SMALL = "--width 0.0625 --input 3x67x67 --num-classes 4"
PREACTIVATED = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        with torch.no_grad():
            self.bn1.weight[1] = -1

    def forward(self, x):
        y = self.conv1(self.bn1(x).relu())
        return torch.cat([x, self.conv2(self.bn2(y).relu())], 1)

def build():
    return Block(), torch.randn(2, 4, 8, 8)

def deciding():
    class Net(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            return y if y.sum() > 0 else -y
    return Net(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 4, 8, 8)
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in a folder with one Python file: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(PREACTIVATED)

    def runner(line):
        try:
            main(line.split())
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return runner


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_all_formats_at_once(run, tmp_path):
    outs = "--out a.onnx --out made/b.pt2 --out c.safetensors"
    code, out, err = run(f"fold alexnet --norm batch {SMALL} {outs} --json")
    assert code == 0, err
    assert json.loads(out)["ledger"]["folded"] == 5
    assert files(tmp_path) == ["a.onnx", "c.safetensors", "made", "net.py"]
    assert [line.split(" written, ")[0] for line in err.splitlines()] == [
        "a.onnx",
        "made/b.pt2",
        "c.safetensors",
    ]
    assert all(
        "of samples; its outputs differ from the original's by at most" in line for line in err.splitlines()
    )


def test_folded_weights_know_that_they_belong_to_a_network_without_batch_norm(run, tmp_path):
    run(f"fold zfnet --norm batch {SMALL} --out a.pt2 --out b.safetensors")
    model, inputs = cs.load("zfnet", weights=str(tmp_path / "b.safetensors"))
    assert inputs == (1, 3, 67, 67)
    x = torch.randn(inputs)
    with torch.no_grad():
        y = torch.export.load(tmp_path / "a.pt2").module()(x)
        torch.testing.assert_close(model.eval()(x), y)


def test_weights_of_a_network_that_keeps_its_norm_name_no_other(run, tmp_path):
    run(f"fold zfnet --norm lrn {SMALL} --out b.safetensors")
    model, _ = cs.load("zfnet", norm="lrn", width=0.0625, input_shape=(3, 67, 67), num_classes=4)
    with pytest.raises(cs.ConvscopeError):  # nothing in it says --width 0.0625
        cs.load("zfnet", weights=str(tmp_path / "b.safetensors"))
    assert type(cs.load("zfnet", norm="lrn", width=0.0625, input_shape=(3, 67, 67), num_classes=4,
                        weights=str(tmp_path / "b.safetensors")).model) is type(model)  # fmt: skip


def test_a_written_program_is_no_network_to_fold(run, tmp_path):
    run(f"fold alexnet --norm batch {SMALL} --out a.pt2")
    code, out, err = run("fold a.pt2")
    assert (code, out) == (2, "")
    assert "'a.pt2' is an exported program" in err


def test_what_stayed_is_told_first(run):
    code, out, err = run("fold net.py:build --measure --repeats 2")
    assert code == 0, err
    assert out.splitlines()[0].strip().startswith("2 batch norms: ")
    assert out.index("Still there") < out.index("outputs of the network before and after")
    assert "bn1#1" in out
    assert "after ÷ twin" in out


def test_measured_as_json(run):
    code, out, _ = run("fold net.py:build --measure --repeats 2 --json")
    speed = json.loads(out)["speed"]
    assert code == 0
    assert speed["repeats"] == 2
    assert speed["ratio_to_twin_low"] <= speed["ratio_to_twin"] <= speed["ratio_to_twin_high"]
    assert speed["twin"]["median"] > 0


def test_choices_reach_the_fold(run, monkeypatch):
    seen = {}

    def reading(model, inputs, **choices):
        seen.update(choices)
        raise cs.ConvscopeError("enough", "nothing", "stop")

    monkeypatch.setattr("convscope.fold.fold", reading)
    run("fold net.py:build")
    assert {name: seen.pop(name) for name in ("measure", "repeats")} == {"measure": False, "repeats": 20}
    assert seen == {}
    run("fold net.py:build --border pad --no-merge --materialise")
    assert {name: seen[name] for name in ("border", "merge", "materialise")} == {
        "border": "pad", "merge": False, "materialise": True,
    }  # fmt: skip


def test_the_library_has_these_choices():
    import inspect

    defaults = {n: p.default for n, p in inspect.signature(cs.fold).parameters.items()}
    assert {name: defaults[name] for name in ("border", "merge", "materialise")} == {
        "border": "keep", "merge": True, "materialise": False,
    }  # fmt: skip


BAD = {
    "fold net.py:build --out net.txt": "a name that ends with .safetensors, .pt2, .onnx",
    "fold net.py:build --out folder": "a name that ends with",
    "fold net.py:build --out net.py/a.pt2": "can't be written",
    "fold net.py:build --out a.pt2 --out b.bin": "'b.bin'",
    "fold net.py:build --border maybe": "border",
    "fold net.py:build --measure --repeats 1": "repeats=1",
    "fold net.py:deciding --out a.onnx": "choose a name that ends with .safetensors or .pt2",
    "fold net.py:absent --out a.onnx": "'absent'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, line):
    (tmp_path / "folder").mkdir()
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("convscope: ")
    assert BAD[line] in err
    assert files(tmp_path) == ["folder", "net.py"]


def test_a_missing_package_is_told_before_anything_runs(run, monkeypatch, tmp_path):
    monkeypatch.setattr("convscope.fold.export.formats.find_spec", lambda _: None)
    code, _, err = run("fold nowhere.py:build --out a.onnx")
    assert code == 2
    assert "install convscope[onnx], or choose a name that ends with .pt2 or .safetensors" in err


def test_help_names_formats_and_has_an_example_of_each(run):
    _, out, _ = run("fold --help")
    for word in (".onnx", ".pt2", ".safetensors", "--no-merge", "--border", "--materialise"):
        assert word in out
    for ending in ("folded.onnx", "folded.safetensors", "folded.pt2"):
        assert f"--out {ending}" in " ".join(out.split())

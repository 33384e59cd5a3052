"""``convscope fold`` as a user types it."""

import json
import re
from typing import get_args

import onnx
import pytest
import torch
from safetensors import safe_open

import convscope as cs
from convscope.cli.main import main
from convscope.networks import Extras, Preprocessing, save_weights
from convscope.networks.plan import Norm

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

def plain(channels=4):
    return nn.Sequential(nn.Conv2d(channels, 4, 3)), (2, channels, 8, 8)

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


@pytest.mark.slow
def test_all_formats_at_once(run, tmp_path):
    outs = "--out a.onnx --out made/b.pt2 --out c.safetensors"
    code, out, err = run(f"fold alexnet --norm batch {SMALL} {outs} --json")
    assert code == 0, err
    assert json.loads(out)["ledger"]["folded"] == 5
    assert files(tmp_path) == ["a.onnx", "c.safetensors", "made", "net.py"]
    *lines, said = err.splitlines()
    assert [line.split(" written, ")[0] for line in lines] == ["a.onnx", "made/b.pt2", "c.safetensors"]
    assert (
        said
        == "in the metadata: no preprocessing, since neither network nor weights state it; no class names"
    )
    for line, holds in zip(lines, ["any number of samples of 3 × 67 × 67"] * 2 + ["weights alone"]):
        assert f", {holds}; its outputs differ from the original's by at most" in line


def test_files_say_what_is_known_of_their_images_and_classes(run, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    layers = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*layers), (1, 3, 16, 16)\n"
    )
    prepare = Preprocessing((16, 16), (0.25, 0.5, 0.75), (0.125, 0.25, 0.5), "bicubic", 1.0, "some photos")
    net = cs.load(f"{tmp_path / 'net.py'}:build").model
    save_weights(net, "w.safetensors", Extras(prepare, ("a cat", "ein Bär"), None))
    code, _, err = run(
        "fold net.py:build --weights w.safetensors --out a.onnx --out a.pt2 --out a.safetensors"
    )
    assert code == 0, err
    assert err.splitlines()[3:] == [
        "in the metadata: images of 16 × 16, (pixel / 255 − mean) / std with mean 0.25, 0.5, 0.75 "
        "and std 0.125, 0.25, 0.5; 2 class names"
    ]
    graph = {entry.key: entry.value for entry in onnx.load("a.onnx").metadata_props}
    program = dict.fromkeys(graph, "")
    torch.export.load("a.pt2", extra_files=program)
    assert graph == program
    assert graph["convscope.folded"] == "true"
    stated = json.loads(graph["convscope.preprocessing"])
    assert (stated["size"], stated["mean"], stated["std"]) == (
        [16, 16],
        [0.25, 0.5, 0.75],
        [0.125, 0.25, 0.5],
    )
    assert (stated["interpolation"], stated["crop_pct"], stated["source"]) == ("bicubic", 1.0, "some photos")
    assert json.loads(graph["convscope.class_names"]) == ["a cat", "ein Bär"]
    with safe_open("a.safetensors", "pt") as file:
        header = file.metadata()
    assert (header["convscope.folded"], json.loads(header["convscope"])["class_names"]) == (
        "true",
        ["a cat", "ein Bär"],
    )


def test_files_state_no_preprocessing_that_nobody_stated(run):
    code, _, err = run(f"fold zfnet --norm batch {SMALL} --out a.pt2")
    assert code == 0
    said = err.splitlines()[-1]
    assert (
        said
        == "in the metadata: no preprocessing, since neither network nor weights state it; no class names"
    )
    found = {"convscope.folded": "", "convscope.preprocessing": "", "convscope.class_names": ""}
    torch.export.load("a.pt2", extra_files=found)
    assert found == {"convscope.folded": "true", "convscope.preprocessing": "", "convscope.class_names": ""}
    assert run(f"fold zfnet --norm batch {SMALL} --out a.pt2 --quiet")[2] == ""


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


def test_a_written_program_is_no_network_to_fold(run):
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 2, 3), (torch.ones(1, 3, 8, 8),)), "a.pt2")
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


def test_a_network_without_batch_norm_is_one_line(run):
    code, out, err = run("fold net.py:plain")
    assert (code, err) == (0, "")
    assert out.strip() == "the network has no batch norm"
    code, out, err = run(f"fold zfnet {SMALL}")
    assert (code, out.strip()) == (0, "the network has no batch norm")
    assert err.strip() == "zfnet and alexnet have batch norm with --norm batch"
    assert run("fold net.py:plain --json")[1].startswith("{")


def test_modes_are_evaluation_s_and_the_help_says_so(run, tmp_path):
    (tmp_path / "mode.py").write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(), (2, 3, 8, 8)\n"
    )
    code, out, _ = run("fold mode.py:build --json")
    assert (code, json.loads(out)["ledger"]["folded"]) == (0, 1)
    assert "in evaluation mode" in " ".join(run("fold --help")[1].split())


def test_choices_reach_the_fold(run, monkeypatch):
    seen = {}

    def reading(model, inputs, **choices):
        seen.update(choices)
        raise cs.ConvscopeError("enough", "nothing", "stop")

    monkeypatch.setattr("convscope.fold.fold", reading)
    run("fold net.py:build")
    assert seen == {"measure": False}
    run("fold net.py:build --border pad --no-merge --materialise --measure --repeats 3")
    assert seen == {
        "border": "pad", "merge": False, "materialise": True, "measure": True, "repeats": 3,
    }  # fmt: skip


def test_the_library_has_these_choices():
    import inspect

    defaults = {n: p.default for n, p in inspect.signature(cs.fold).parameters.items()}
    assert {name: defaults[name] for name in ("border", "merge", "materialise", "repeats")} == {
        "border": "keep", "merge": True, "materialise": False, "repeats": 20,
    }  # fmt: skip


BAD = {
    "fold net.py:build --out net.txt": "a name that ends with .safetensors, .pt2, .onnx",
    "fold net.py:build --out folder": "a name that ends with",
    "fold net.py:build --out net.py/a.pt2": "can't be written",
    "fold net.py:build --out a.pt2 --out b.bin": "'b.bin'",
    "fold net.py:build --border maybe": "border",
    "fold net.py:build --measure --repeats 1": "repeats=1",
    "fold net.py:build --repeats 3": "--repeats 3 without --measure; expected flags that go together; add",
    "fold net.py:deciding --out a.onnx": "choose a name that ends with .safetensors or .pt2",
    "fold net.py:absent --out a.onnx": "'absent'",
    "fold net.py:plain --input 4": "small batch: record(..., real=True), or convscope cost --real",
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


def test_help_offers_what_can_be_folded(run):
    _, out, _ = run("fold --help")
    text = " ".join(out.replace("│", " ").split())
    assert "file.py:callable" in text
    assert "model.pt2" not in text
    assert "[default: 20]" in text
    for norm in get_args(Norm):
        assert re.search(rf"Normalisation of alexnet and zfnet: [\w ,]*\b{norm}\b", text)
    _, out, _ = run("report --help")
    text = " ".join(out.replace("│", " ").split())
    for norm in get_args(Norm):
        assert re.search(rf"Normalisation of alexnet and zfnet: [\w ,]*\b{norm}\b", text)

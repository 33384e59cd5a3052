"""``convscope checkup`` as a user types it."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from convscope.checkup.explain import page_names
from convscope.cli.main import main

NETWORKS = """
import torch
from torch import nn

SHAPE = (2, 3, 24, 24)

def network(outputs=2, momentum=0.1):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=momentum), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, outputs),
    )
    return net, SHAPE

def five():
    return network(outputs=5)

def tensorflow():
    return network(momentum=0.9)

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), SHAPE

def own_inputs():
    net, _ = network()
    return net, torch.randn(SHAPE)

def two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)
        def forward(self, a, b):
            return self.bn(a + b)
    return Two(), (torch.randn(SHAPE), torch.randn(SHAPE))

def on_two_devices():
    net, shape = network()
    net[5] = nn.Linear(24, 2, device="meta")
    return net, shape
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in a folder with networks and pictures: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORKS)
    for number in range(24):
        folder = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((32, 30), 40 + 2 * number).convert("RGB")
        noise.save(folder / f"{number}.png")

    def runner(line):
        try:
            main(line.split())
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return runner


def refused(result):
    """The one line that a refused command line prints."""
    code, out, err = result
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("convscope: ")]
    assert "Traceback" not in err
    assert len(lines) == 1
    return lines[0]


def test_static_reading_prints_findings_and_the_proof(run):
    code, out, err = run("checkup net.py:tensorflow")
    assert (code, err) == (0, "")
    assert "momentum-convention" in out
    assert "More: convscope checkup --explain momentum-convention" in out
    assert "your model is unchanged: parameters, buffers, modes, hooks and random generators" in out


def test_json_has_pages_state_and_depth(run):
    code, out, _ = run("checkup net.py:tensorflow --json")
    found = json.loads(out)
    assert code == 0
    assert found["depth"] == "static"
    assert found["state"]["unchanged"] is True
    assert found["state"]["before"] == found["state"]["after"]
    assert set(found["state"]["before"]) == {"parameters", "buffers", "modes", "hooks", "rng"}
    pages = {finding["fault"]: finding["page"] for finding in found["findings"]}
    assert pages["momentum-convention"] == "convscope checkup --explain momentum-convention"


def test_a_network_without_batch_norm_is_told_so(run):
    for line in (
        "checkup net.py:plain",
        "checkup net.py:plain --data pictures",
        "checkup net.py:plain --fix",
    ):
        code, out, _ = run(line)
        assert code == 0
        assert "no batch norm" in out or "Nothing to mend" in out


def test_inputs_of_its_own_are_no_data(run):
    for name in ("own_inputs", "two_inputs"):
        code, out, _ = run(f"checkup net.py:{name} --json")
        assert code == 0
        assert json.loads(out)["depth"] == "static"


def test_folders_that_are_the_networks_classes_are_labels(run):
    code, out, _ = run("checkup net.py:network --data pictures --batch 6 --json")
    found = json.loads(out)
    assert code == 0
    assert found["depth"] == "data"
    assert found["gap"] is not None
    assert found["num_samples"] == 6 * found["num_batches"]
    code, out, err = run("checkup net.py:five --data pictures --batch 6 --json")
    assert code == 0
    assert json.loads(out)["gap"] is None
    assert "the data's classes aren't those of the network" in err


def test_class_names_give_the_labels_their_numbers(run, tmp_path):
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ncow\ndog\n")
    code, out, err = run("checkup net.py:five --data pictures --classes names.txt --batch 6 --json")
    assert (code, "classes aren't" in err) == (0, False)
    assert json.loads(out)["gap"] is not None
    (tmp_path / "others.txt").write_text("ant\nbee\ncat\ncow\nhen\n")
    code, out, err = run("checkup net.py:five --data pictures --classes others.txt --batch 6 --json")
    assert json.loads(out)["gap"] is None
    assert "classes aren't" in err


@pytest.mark.parametrize("flag", ["--batch", "--batch-size"])
def test_batches_and_their_number(run, flag):
    code, out, _ = run(f"checkup net.py:network --data pictures {flag} 4 --max-batches 2 --json")
    found = json.loads(out)
    assert code == 0
    assert (found["num_batches"], found["num_samples"]) == (2, 8)


def test_fix_shows_before_and_after_and_writes_weights_that_fit(run, tmp_path):
    line = "checkup net.py:tensorflow --data pictures --batch 6 --fix"
    code, out, _ = run(line)
    assert code == 0
    assert "before" in out
    assert "after" in out
    assert "gone: momentum-convention at 1#1" in out
    code, out, err = run(f"{line} --out mended.safetensors --json")
    assert code == 0
    assert {finding["fault"] for finding in json.loads(out)["before"]["findings"]} >= {
        "momentum-convention",
        "redundant-bias",
    }
    assert "not in the file, since weights don't hold it: momentum" in err
    tensors = load_file(tmp_path / "mended.safetensors")
    assert bool((tensors["0.bias"] == 0).all())
    code, out, err = run(
        "checkup net.py:network --weights mended.safetensors --data pictures --batch 6 --json"
    )
    assert code == 0
    faults = {finding["fault"] for finding in json.loads(out)["findings"]}
    assert not faults & {"stale-statistics", "young-statistics", "non-finite-statistics"}


def test_a_page_with_pictures(run, tmp_path):
    code, _, err = run("checkup net.py:network --data pictures --batch 6 --page found.html --json")
    assert code == 0
    assert "written: found.html" in err
    html = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert 'data-chart="checkup-statistics"' in html
    assert "net.py:network" in html
    code, *_ = run("checkup net.py:tensorflow --data pictures --batch 6 --fix --page mended.html")
    assert code == 0
    assert "momentum-convention" not in (tmp_path / "mended.html").read_text(encoding="utf-8")


def test_a_reference_by_name_or_file(run, tmp_path):
    code, *_ = run("checkup net.py:network --data pictures --batch 6 --fix --out one.safetensors")
    assert code == 0
    for reference in ("net.py:tensorflow", "one.safetensors"):
        code, out, _ = run(f"checkup net.py:network --reference {reference} --json")
        assert code == 0, reference
        assert "state" in json.loads(out)


@pytest.mark.parametrize("fault", page_names()[:3])
def test_pages_are_printed(run, fault):
    code, out, err = run(f"checkup --explain {fault}")
    assert (code, err) == (0, "")
    assert out.startswith(f"# {fault}")


def test_no_attribution(run):
    code, out, _ = run("checkup net.py:network --data pictures --batch 6 --no-attribution --json")
    assert code == 0
    assert json.loads(out)["attribution"] == []


REFUSED = {
    "checkup": "checkup without a network",
    "checkup --explain stale-statistic": "did you mean 'stale-statistics'",
    "checkup net.py:network --out x.safetensors": "--out 'x.safetensors' without --fix",
    "checkup net.py:network --fix --out x.pt": "a name that ends with .safetensors",
    "checkup net.py:network --page x.pdf": "a name that ends with .html",
    "checkup net.py:network --max-batches 0": "max_batches=0; expected a whole number from 1",
    "checkup net.py:network --data empty": "empty",
    "checkup net.py:network --data nowhere": "nowhere",
    "checkup net.py:network --reference nowhere": "nowhere",
    "checkup net.py:network --data pictures --batch 0": "batch",
    "checkup net.py:on_two_devices": "tensor '5.weight' on the meta device",
    "checkup net.py:network --fix --out missing/../net.py/x.safetensors": "can't be written",
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, line):
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert REFUSED[line] in refused(run(line))
    assert sorted(path.name for path in tmp_path.rglob("*") if "__pycache__" not in str(path)) == before


def test_the_given_weights_are_not_changed(run, tmp_path):
    run("checkup net.py:network --data pictures --batch 6 --fix --out first.safetensors")
    before = (tmp_path / "first.safetensors").read_bytes()
    run("checkup net.py:tensorflow --weights first.safetensors --data pictures --fix")
    assert (tmp_path / "first.safetensors").read_bytes() == before
    assert torch.equal(
        load_file(tmp_path / "first.safetensors")["0.bias"],
        torch.zeros(6),
    )

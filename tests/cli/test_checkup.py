"""``convscope checkup`` as a user types it."""

import json
import re

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

class Heads(nn.Module):
    def __init__(self, form, outputs):
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.scores, self.size, self.form = nn.Linear(6, outputs), nn.Linear(6, 1), form
    def forward(self, x):
        x = self.norm(self.body(x)).relu().mean((2, 3))
        return self.form(self.scores(x), self.size(x))

def heads():
    return Heads(lambda scores, size: (size, scores), 2), SHAPE

def as_dict():
    return Heads(lambda scores, size: {"scores": scores, "size": size}, 2), SHAPE

def heads_of_five():
    return Heads(lambda scores, size: {"scores": scores, "size": size}, 5), SHAPE

def maps():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), SHAPE

def tensorflow():
    return network(momentum=0.9)

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), SHAPE

def unseeded():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(24, 2),
    )
    return net, SHAPE

def norm_alone():
    return nn.BatchNorm2d(3, affine=False), SHAPE

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
    code, out, _ = run("checkup net.py:five --data pictures --batch 6 --json")
    assert code == 0
    assert json.loads(out)["gap"] is None
    assert "the data has 2, the network gives 5 scores an image" in why_no_gap(out)


def why_no_gap(out):
    """The one reason in a report's JSON for there being no gap."""
    (note,) = [each for each in json.loads(out)["unchecked"] if each["what"] == "gap"]
    return note["reason"]


@pytest.mark.parametrize(("network", "place"), [("heads", 2), ("as_dict", 1)])
def test_of_several_outputs_the_scores_are_taken_and_said(run, network, place):
    code, out, _ = run(f"checkup net.py:{network} --data pictures --batch 6 --json")
    assert code == 0
    found = json.loads(out)
    assert found["gap"] is not None
    assert found["loss_of"] == f"output {place} of 2, of shape (images, 2)"
    _, out, _ = run(f"checkup net.py:{network} --data pictures --batch 6")
    assert f"is that of output {place} of 2" in out


@pytest.mark.parametrize(("network", "gives"), [
    ("heads_of_five", "5 scores an image"), ("maps", "no output that may be scores (images, classes)"),
])  # fmt: skip
def test_what_fits_no_class_is_said_in_the_command_lines_words(run, network, gives):
    code, out, _ = run(f"checkup net.py:{network} --data pictures --batch 6 --json")
    assert code == 0
    reason = why_no_gap(out)
    assert reason.endswith(f"the data has 2, the network gives {gives}; --classes FILE names them")
    assert "loss=" not in reason


def test_pictures_without_classes_are_said_to_have_none(run):
    code, out, err = run("checkup net.py:network --data pictures/cat --batch 6 --json")
    assert (code, err) == (0, "")
    assert why_no_gap(out).startswith("the pictures have no classes")


def test_class_names_give_the_labels_their_numbers(run, tmp_path):
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ncow\ndog\n")
    code, out, err = run("checkup net.py:five --data pictures --classes names.txt --batch 6 --json")
    assert (code, err) == (0, "")
    assert json.loads(out)["gap"] is not None
    assert json.loads(out)["given"]["images"]["labels"] == "by the network's class names"
    (tmp_path / "others.txt").write_text("ant\nbee\ncat\ncow\nhen\n")
    code, out, _ = run("checkup net.py:five --data pictures --classes others.txt --batch 6 --json")
    assert json.loads(out)["gap"] is None
    assert "'dog' isn't one of its 5 names" in why_no_gap(out)


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
    assert "1 bias that went: zeros in the file, for the network's code has them" in err
    tensors = load_file(tmp_path / "mended.safetensors")
    assert bool((tensors["0.bias"] == 0).all())
    code, out, err = run(
        "checkup net.py:network --weights mended.safetensors --data pictures --batch 6 --json"
    )
    assert code == 0
    faults = {finding["fault"] for finding in json.loads(out)["findings"]}
    assert not faults & {"stale-statistics", "young-statistics", "non-finite-statistics", "redundant-bias"}


def test_a_page_with_pictures(run, tmp_path):
    code, _, err = run("checkup net.py:network --data pictures --batch 6 --page found.html --json")
    assert code == 0
    assert "written: found.html" in err
    html = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert 'data-chart="checkup-statistics"' in html
    assert "net.py:network" in html


def test_the_page_of_a_mending_shows_repairs_and_what_is_left(run, tmp_path):
    code, out, _ = run("checkup net.py:tensorflow --data pictures --batch 6 --fix --page mended.html --json")
    assert code == 0
    html = (tmp_path / "mended.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    found = json.loads(out)
    assert data["mending"]["mended"] == found["mended"]
    assert data["mending"]["left"] == found["left"]
    assert {"fault": "momentum-convention", "address": "1#1"} in data["mending"]["gone"]
    assert "of the mended copy" in html
    (gap,) = [row for row in data["mending"]["rows"] if row["name"].startswith("loss with running")]
    assert float(gap["before"]) == pytest.approx(found["before"]["eval_loss"], rel=1e-3)
    assert float(gap["after"]) == pytest.approx(found["after"]["eval_loss"], rel=1e-3)
    assert "pictures: 18 of its 20 training images" in html


def test_a_reference_by_name_or_file(run, tmp_path):
    code, *_ = run("checkup net.py:network --data pictures --batch 6 --fix --out one.safetensors")
    assert code == 0
    for reference in ("net.py:tensorflow", "one.safetensors"):
        code, out, _ = run(f"checkup net.py:network --reference {reference} --json")
        assert code == 0, reference
        assert "state" in json.loads(out)


@pytest.mark.parametrize("fault", page_names()[:3])
def test_pages_are_printed_for_reading(run, fault):
    code, out, err = run(f"checkup --explain {fault}")
    assert (code, err) == (0, "")
    assert out.lstrip().startswith(f"{fault}: ")
    assert "```" not in out
    assert "\n#" not in out
    assert "How to mend it" in out


def test_without_a_name_all_faults_are_told_in_a_line_each(run):
    code, out, err = run("checkup --explain")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[: len(page_names())]] == list(page_names())
    assert "the averages still hold what they started from" in out


def test_what_was_run_is_told(run):
    code, out, err = run("checkup net.py:network --data pictures --batch 6 --json")
    given = json.loads(out)["given"]
    assert (code, err) == (0, "")
    assert (given["network"], given["weights"], given["input_shape"]) == ("net.py:network", None, [3, 24, 24])
    images = given["images"]
    # Of 12 pictures a class, round(12 / 5) = 2 are for validation.
    assert (images["num_read"], images["num_kept_back"], images["batch_size"]) == (20, 4, 6)
    assert images["is_own"]
    _, out, _ = run("checkup net.py:network --data pictures --batch 6")
    told = " ".join(out.split())
    assert "pictures: 18 of its 20 training images, shuffled, in batches of 6; 4 more, for validation" in told
    assert "3 × 24 × 24, shorter side resized and centre cut out" in told
    assert "give those with --mean and --std" in told
    assert "none given: as the network was built, with seed 0" in told


def test_mean_and_deviation_can_be_stated(run, tmp_path):
    for number in range(20):
        folder = tmp_path / "grey"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (100, 120, 100 + number)).save(folder / f"{number:02}.png")
    line = "checkup net.py:norm_alone --data grey --batch 4 --mean 0.5,0.25,0.5 --std 0.25 --json"
    code, out, _ = run(line)
    found = json.loads(out)
    assert code == 0
    red, green, _ = found["layers"][0]["single"]["mean"]
    assert red == pytest.approx((100 / 255 - 0.5) / 0.25, rel=1e-4)
    assert green == pytest.approx((120 / 255 - 0.25) / 0.25, rel=1e-4)
    images = found["given"]["images"]
    assert (images["mean"], images["std"], images["is_own"]) == ([0.5, 0.25, 0.5], [0.25] * 3, False)
    assert "--mean" in images["normalised_by"]
    code, out, _ = run("checkup net.py:norm_alone --data grey --batch 4 --json")
    assert json.loads(out)["layers"][0]["single"]["mean"][0] == pytest.approx(0, abs=1e-4)


def test_stated_constants_are_kept_with_mended_weights(run):
    line = "checkup net.py:network --data pictures --batch 6"
    code, _, err = run(f"{line} --mean 0.5 --std 0.2 --fix --out kept.safetensors")
    assert code == 0
    assert "written: kept.safetensors" in err
    _, out, _ = run(f"{line} --weights kept.safetensors --json")
    given = json.loads(out)["given"]
    assert given["weights"] == "kept.safetensors"
    assert (given["images"]["mean"], given["images"]["std"]) == ([0.5] * 3, [0.2] * 3)
    assert not given["images"]["is_own"]


def test_fresh_networks_are_the_same_each_time(run):
    line = "checkup net.py:unseeded --data pictures --batch 6 --json"
    first, second = (json.loads(run(line)[1]) for _ in range(2))
    assert first["eval_loss"] == second["eval_loss"]
    assert first["layers"] == second["layers"]
    assert first["given"]["seed"] == 0


def test_nothing_mended_is_no_file(run, tmp_path):
    code, out, err = run("checkup net.py:plain --fix --out none.safetensors")
    assert code == 0
    assert "no batch norm: nothing to mend" in out
    assert "findings:" not in out
    assert "not written, since nothing was mended: none.safetensors" in err
    assert not (tmp_path / "none.safetensors").exists()


def test_a_batch_beyond_the_images_is_said_to_be_smaller(run):
    code, out, err = run("checkup net.py:network --data pictures --batch 1000 --json")
    assert code == 0
    assert "one batch of 20" in err
    assert json.loads(out)["given"]["images"]["batch_size"] == 20


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
    "checkup net.py:network --data pictures --batch 0": "--batch 0; expected a whole number from 1",
    "checkup net.py:network --data pictures --batch-size 0": "--batch-size 0; expected a whole number",
    "checkup net.py:network --data pictures --input 64": "give the shape of one image, such as --input",
    "checkup net.py:two_inputs --data pictures": "two_inputs' with inputs of its own; expected images",
    "checkup net.py:network --data pictures --mean 0.5": "--mean without --std; expected both",
    "checkup net.py:network --data pictures --mean 128 --std 64": "divide numbers of a scale of 0 to 255",
    "checkup net.py:network --data pictures --mean 0.5 --std 0": "deviations above 0",
    "checkup net.py:network --data pictures --mean 0.5,0.5 --std 1": "expected 3 numbers with commas",
    "checkup net.py:network --data pictures --mean a,b,c --std 1": "write it as --mean 0.5,0.5,0.5",
    "checkup net.py:network --mean 0.5 --std 1": "--mean or --std without --data",
    "checkup net.py:on_two_devices": "tensor '5.weight' on the meta device",
    "checkup net.py:tensorflow --fix --out missing/../net.py/x.safetensors": "can't be written",
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

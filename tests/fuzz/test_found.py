"""Inputs that once ended in a traceback, in another exit code, or with something left behind."""

import json

import pytest
from safetensors.torch import load_file, save

from fuzz.trial import Case, typed

NET, HUGE = "net.py:build", str(2**63)
OWN = "from torch import nn\n\n\ndef build(**options):\n    "
TABLE = b"""
network = "net.py:build"
data = "pictures"
seeds = 1000000000000
[choices]
learning_rate = [0.1, 0.2]
"""
FOUND = {
    "input's sizes": Case(("fold", NET, "--input", HUGE)),
    "batch": Case(("cost", NET, "--batch", HUGE)),
    "shape of a callable": Case(
        ("fold", "own.py:build"), {"own.py": f"{OWN}return nn.ReLU(), ({HUGE}, 3, 8, 8)\n".encode()}
    ),
    "classes": Case(("cost", "zfnet", "--width", "0.0625", "--num-classes", "9" * 30)),
    "memory": Case(("max-batch", NET, "--memory", "9" * 400 + "GiB")),
    "limit": Case(("gate", NET, "--max-params", "9" * 400)),
    "long name of a network": Case(("cost", "é" * 300)),
    "long name of a file": Case(("checkup", NET, "--reference", "é" * 300)),
    "long name of data": Case(("stem", NET, "--data", "é" * 300)),
    "stray byte": Case(("compare", "a\udc80b" + "é" * 100, "--data", "pictures", "--list")),
    "seeds": Case(("compare", "odd.toml", "--list"), {"odd.toml": TABLE}),
    "flood": Case(("cost", "x" * 5000)),
    "attributes": Case(
        ("cost", "own:build"), {"own.py": b"def __getattr__(name):\n    raise ValueError(name)\n"}
    ),
    "exit in a file": Case(("cost", "own.py:build"), {"own.py": b"import sys\nsys.exit(0)\n"}),
    "exit in a callable": Case(("cost", "own.py:build"), {"own.py": f"{OWN}raise SystemExit(5)\n".encode()}),
    "second network": Case(("report", NET, "nothing", "--data", "pictures", "--out", "both")),
    "folders": Case(("gallery", NET, "--data", "gone", "--out", "a/b/c")),
}


@pytest.mark.parametrize("what", FOUND)
def test_it_is_refused(place, what):
    assert place.refuses(FOUND[what])


@pytest.mark.parametrize("said", [" ", True, {"reference": 3}, {"reference": NET, "input_shape": ["a"]}])
def test_weights_with_another_header_are_refused(place, said):
    state = load_file(place.folder / "weights.safetensors")
    content = save(state, {"convscope": json.dumps({"network": said})})
    assert place.refuses(Case(("cost", NET, "--weights", "odd.safetensors"), {"odd.safetensors": content}))


def test_a_place_in_a_run_that_was_altered_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = ("train", NET, "--data", "pictures", "--batch-size", "4", "--device", "cpu", "--out", "run")
    assert typed((*words, "--epochs", "1")).code == 0
    file = folder / "run" / "checkpoint.safetensors"
    whole = file.read_bytes()
    altered = whole.replace(rb"\"epoch\": 1", rb"\"epoch\": 8")
    assert altered != whole
    for content, code in ((altered, 2), (whole, 0)):
        file.write_bytes(content)
        outcome = typed((*words, "--epochs", "2", "--resume"))
        assert (outcome.code, "checksum" in outcome.err) == (code, code == 2)

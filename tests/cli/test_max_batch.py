"""``convscope max-batch`` as a user types it."""

import json
import re

import pytest

from cli.typed import run

TINY = "max-batch alexnet --width 0.0625 --input 3x67x67 --num-classes 4 --gpu T4"


def test_three_answers_and_what_binds(capsys):
    code, out, err = run(capsys, f"{TINY} --memory 300MiB --optimizer adamw")
    assert (code, err) == (0, "")
    for word in ("safe", "likely", "optimistic", "activation-bound", "in backward at", "adamw", "T4", "MiB"):
        assert word in out.replace("sm75", "T4"), word
    assert "ends at --most" not in out


def test_json(capsys):
    code, out, _ = run(capsys, f"{TINY} --memory 1GiB --most 100 --inference --json")
    found = json.loads(out)
    assert code == 0
    assert (found["schema_version"], found["network"], found["plan"]) == (1, "alexnet", "inference")
    assert [found[name]["batch"] for name in ("safe", "likely", "optimistic")] == [100, 100, 100]
    assert found["safe"]["stops_at"] is None
    assert found["memory_bytes"] == 2**30


def test_the_cap_is_named(capsys):
    code, out, _ = run(capsys, f"{TINY} --memory 1GiB --most 100 --inference")
    assert code == 0
    words = " ".join(out.split())
    assert "safe, likely, optimistic the search ends at --most 100 (max_batch), which fits" in words
    assert "tensors alone" not in words


def test_help_doesnt_offer_a_batch(capsys):
    code, out, _ = run(capsys, "max-batch --help")
    assert code == 0
    assert "--batch" not in out
    assert "--most" in out
    assert "Shape of one input" in out  # the other flags keep their words


@pytest.mark.parametrize("memory", ["1MiB", "145MiB", "150MiB"])
def test_no_batch_fits_is_exit_code_1(capsys, memory):
    """Less than the network, less than the CUDA context, and a little more than that."""
    code, out, err = run(capsys, f"{TINY} --memory {memory}")
    assert (code, err) == (1, "")
    assert "no batch fits  under the likely answer, which decides (exit code 1): " in out


def test_the_memory_that_is_said_to_be_enough_is_enough(capsys):
    line = TINY.replace("T4", "sm90")  # whose context has a wide range
    code, out, _ = run(capsys, f"{line} --memory 300MiB")
    words = " ".join(out.split())
    assert code == 1
    assert re.search(r"optimistic [1-9]", words)  # the hopeful answer alone doesn't decide
    enough = int(re.search(r"a batch of 1 fits from (\d+)MiB on", words)[1])
    assert "no batch fits" in words
    assert run(capsys, f"{line} --memory {enough}MiB")[0] == 0
    assert run(capsys, f"{line} --memory {enough - 2}MiB")[0] == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", "--memory"),
        ("--memory 24", "expected a positive number and a unit"),
        ("--memory=-3GiB", "expected a positive number and a unit"),
        ("--memory 0GiB", "expected a positive number and a unit"),
        ("--memory 24Gb", "a small b is bits: do you mean 24GiB or 24GB?"),
        ("--memory 24G", "do you mean 24GiB or 24GB?"),
        ("--memory 1GiB --optimizer lion", "--optimizer lion; expected one of sgd, "),
        ("--memory 1GiB --precision fp8", "--precision fp8; expected one of fp32, "),
        ("--memory 1GiB --device tpu", "device 'tpu'"),
        ("--memory 1GiB --most 0", "max_batch=0"),
        ("--memory 1GiB --batch 8", "--batch 8; expected none: the batch is what is sought"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, flags, words):
    code, out, err = run(capsys, f"{TINY} {flags}")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1

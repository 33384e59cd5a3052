"""``convscope max-batch`` as a user types it."""

import json

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


def test_no_batch_fits_is_exit_code_1(capsys):
    code, out, err = run(capsys, f"{TINY} --memory 145MiB")
    assert (code, err) == (1, "")
    assert "no batch fits" in out
    assert "a batch of 1 needs at least" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", "--memory"),
        ("--memory 24", "expected a positive number and a unit"),
        ("--memory=-3GiB", "expected a positive number and a unit"),
        ("--memory 0GiB", "expected a positive number and a unit"),
        ("--memory 1MiB", "itself, beside 135 MiB for the CUDA context"),
        ("--memory 1GiB --optimizer lion", "TrainingPlan(optimizer='lion')"),
        ("--memory 1GiB --precision fp8", "TrainingPlan(precision='fp8')"),
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

"""``--lean``, as a user types it."""

import json

import pytest

from cli.typed import run

TINY = "zfnet --norm batch --width 0.0625 --input 3x67x67 --num-classes 4 --batch 64"


def _saved(capsys, words):
    code, out, err = run(capsys, f"cost {words} --json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_cost_reads_the_lean_step_beside_the_other(capsys):
    lean, plain = _saved(capsys, f"{TINY} --lean"), _saved(capsys, TINY)
    assert lean["forecast_without_lean"]["allocated_peak_bytes"] == plain["forecast"]["allocated_peak_bytes"]
    assert plain["forecast_without_lean"] is None
    assert lean["totals"]["saved_bytes"] < 0.7 * plain["totals"]["saved_bytes"]
    code, out, _ = run(capsys, f"cost {TINY} --lean")
    assert code == 0
    assert "without lean()" in out


def test_max_batch_finds_more(capsys):
    words = (
        "max-batch alexnet --variant torchvision --norm batch --width 0.25 --input 3x99x99 --memory 500MiB"
    )
    batches = [
        json.loads(run(capsys, f"{words} --optimizer sgd {flag} --json")[1])["optimistic"]["batch"]
        for flag in ("", "--lean")
    ]
    assert batches[0] < batches[1]


@pytest.mark.parametrize("command", ["cost {}", "max-batch alexnet --memory 1GiB", "gate {} --max-params 1M"])
def test_inference_has_nothing_to_save(command, capsys):
    code, _, err = run(capsys, f"{command.format(TINY)} --lean --inference")
    assert code == 2
    assert err.startswith("convscope: --lean with --inference; expected flags that go together")

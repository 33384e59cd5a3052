"""A check-up and a mending in the terminal."""

import io
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from convscope import checkup as check
from convscope.checkup import Left, Mended, Mending, Progress, Unchecked
from convscope.cli.progress import CheckupBar
from convscope.report.terminal.tables import table


def test_shares_of_the_gap_are_a_table(checkup, hostile):
    text = str(checkup)
    assert "takes of the gap" in text
    assert "0.1 ± 0.02" in text
    assert "misled by a layer before it" in text
    assert hostile in text


def test_how_to_read_more_is_said_once_for_each_fault(checkup):
    twice = replace(checkup, findings=(*checkup.findings, checkup.findings[0]))
    assert str(twice).count("More: convscope checkup --explain stale-statistics") == 1
    assert "--explain dead-gamma" not in str(twice)


def test_findings_of_one_fault_are_told_once_with_their_places(checkup):
    places = [f"layer{number}#1" for number in range(9)]
    alike = tuple(
        replace(checkup.findings[0], address=place, effect=9.0 - number)
        for number, place in enumerate(places)
    )
    text = " ".join(str(replace(checkup, findings=alike)).split())
    assert text.count(alike[0].remedy) == 1
    assert f"at {places[0]} " in text
    assert f"The same, by falling effect, at {', '.join(places[1:7])} and 2 more (--json has all)" in text


def test_places_of_one_effect_have_no_order(checkup):
    alike = tuple(replace(checkup.findings[0], address=place) for place in "ab")
    assert "The same at b" in str(replace(checkup, findings=alike))


def test_a_remedy_is_told_once(checkup):
    first = checkup.findings[0]
    text = str(replace(checkup, findings=(first, replace(first, severity="advice", address="other#1"))))
    assert text.count(first.remedy) == 1
    assert "What to do: the same as above" in text


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 120, 160])
def test_numbers_and_names_are_whole_at_every_width(checkup, width):
    name = "backbone.feature_extractor.0.bn#1"
    layer = replace(
        checkup.layers[0], address=name, mean_residual=0.98761, mean_error=0.065, variance_residual=3.2071,
        variance_error=0.062, stale_channels=77,
    )  # fmt: skip
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(replace(checkup, layers=(layer,), attribution=()).__rich__())
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    table = text[text.index("Batch norm") if "Batch norm" in text else text.index("More:") :]
    words = set(re.findall(r"[\w.]+", table))
    assert {"0.988", "0.065", "3.207", "0.062", "77"} <= words
    assert all(part in table for part in ("backbone.", "feature_", "extractor", "bn#1"))
    if width >= 160:
        assert {"18,432", "913.4"} <= set(re.findall(r"[\d.,]+", table))
    else:
        assert "too narrow here for: Momentum" in " ".join(table.split())


def test_a_table_without_room_is_told_row_by_row():
    made = table(
        ("Repair", "Loss#", "Outputs changed by#"), [("a", "1234.5678", "8,192")], footer=("t", "", "9")
    )
    console = Console(width=20, file=io.StringIO(), color_system=None)
    console.print(made)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[:2] == ["a", "   Loss: 1234.5678;"]
    assert "".join(lines[2:4]).replace(" ", "") == "Outputschangedby:8,192"
    assert lines[-3] == "t"


def test_a_gap_has_as_many_digits_as_its_error_leaves(checkup):
    text = str(replace(checkup, gap=0.95432, gap_error=0.06682))
    assert "0.954 ± 0.067" in text


def test_losses_have_their_unit_where_it_is_known(checkup):
    text = str(checkup)
    assert re.search(r"loss with running statistics\s+0\.52 nats *\n", text)
    assert re.search(r"gap, the first minus the second\s+0\.11 ± 0\.02 nats *\n", text)
    assert "takes of the gap, nats" in text
    own = str(replace(checkup, loss_unit="loss"))
    assert re.search(r"loss with running statistics\s+0\.52 *\n", own)
    assert "takes of the gap, in the loss’s unit" in own


def test_what_was_not_checked_is_told_once_for_a_reason(checkup):
    notes = [Unchecked(f"dead-gamma at {place}", "no data") for place in "abcdefgh"]
    text = str(replace(checkup, unchecked=(*notes, Unchecked("gap", "no data"))))
    assert "not checked: dead-gamma at a, b, c, d, e, f and 2 more (--json has all): no data" in text
    assert "not checked: gap: no data" in text


def test_expected_faults_and_the_proof(checkup):
    text = str(checkup)
    assert "expected: young-statistics at" in text
    assert (
        "your model is unchanged: parameters, buffers, modes, hooks and random generators have the same "
        "hashes before and after"
    ) in text
    assert "your model" not in str(replace(checkup, state=None))
    changed = replace(checkup.state, after=replace(checkup.state.after, modes="x"), unchanged=False)
    assert "your model has changed during the check-up: modes" in str(replace(checkup, state=changed))


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        ("data", "500 samples in 8 batches"),
        ("static", "no data"),
        ("training", "a watched training run"),
    ],
)
def test_the_heading_says_how_deep_it_went(checkup, depth, words):
    assert f"Check-up of 2 batch norms ({words})" in str(replace(checkup, depth=depth))


def test_a_network_without_batch_norm():
    text = str(check(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 8, 8)))
    assert text.startswith("This network has no batch norm\n\nthere is nothing to check")


def test_a_mending_shows_what_was_done_before_and_after(checkup):
    after = replace(checkup, findings=checkup.findings[1:], gap=0.01, eval_loss=0.42)
    found = Mending(
        checkup,
        after,
        (Mended(("stale-statistics",), ("bn1#1",), "statistics estimated anew", 2e-7),),
        (Left("dead-gamma", "bn2#1", "it needs a decision"),),
        nn.ReLU(),
    )
    text = str(found)
    assert "1 repair (on a copy: your model is as it was)" in text
    assert "statistics estimated anew" in text
    assert "2e-07" in text
    lines = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines() if line}
    assert lines["findings: warning"] == ["1", "0"]
    assert lines["findings: advice"] == ["1", "1"]
    gap = next(line for line in text.splitlines() if line.startswith("gap between them"))
    assert re.findall(r"\S+ ± \S+", gap) == ["0.11 ± 0.02", "0.01 ± 0.02"]
    assert "gone: stale-statistics at bn1#1" in text
    assert "left: dead-gamma at bn2#1: it needs a decision" in text


def test_nothing_to_mend(checkup):
    text = str(Mending(checkup, checkup, (), (), nn.ReLU()))
    assert text.startswith("Nothing to mend")
    assert "gone" not in text


def test_the_bar_takes_every_kind_of_course(capsys):
    with CheckupBar() as bar:
        bar(Progress("running batches", 1, None))
        bar(Progress("running batches", 2, 7))
        bar(Progress("attributing the gap to layers", 3, 3))
    assert capsys.readouterr().out == ""

"""Differences of two reports, from plain values."""

import copy

import pytest

from convscope.report.side_by_side.differences import differences, layer_differences, only_in

ROW = {"address": "a#1", "op": "convolution", "output_shape": [2, 4, 8, 8], "macs": 100, "params": 10,
       "saved_bytes": 64}  # fmt: skip


def _row(**changes):
    return {**ROW, **changes}


def _finding(fault, severity="warning", address="a#1"):
    return {"fault": fault, "severity": severity, "address": address, "why": f"{fault} is there"}


def _report(**parts):
    return {
        "cost": {"totals": {"params": 200, "macs": 4000}, "rows": [ROW], "findings": []},
        "checkup": {"gap": 0.25, "findings": []},
        "counts": {"norms": 3, "checkup": {"error": 0, "warning": 2}},
        "stem": None, "training": None,
        **parts,
    }  # fmt: skip


def test_numbers_that_one_has_are_told_with_their_ratio():
    other = _report(stem={"aliased_share": 0.5}, checkup=None)
    other["cost"] = {"totals": {"params": 500, "macs": 4000}, "rows": []}
    found = {(each.part, each.name): each for each in differences(_report(), other)}
    params = found["Cost", "parameters"]
    assert (params.first, params.second, params.ratio, params.form) == (200, 500, 2.5, "count")
    assert found["Cost", "MACs, forward"].ratio == 1.0
    assert (found["First layer", "aliased energy"].first, found["First layer", "aliased energy"].second) == (
        None,
        0.5,
    )
    gap = found["Check-up", "gap between running and batch statistics"]
    assert (gap.first, gap.second, gap.ratio, gap.unit) == (0.25, None, None, "nats")
    assert found["Check-up", "errors"].ratio is None  # nothing ÷ nothing
    assert ("Fold", "batch norms folded away") not in found


def test_layers_are_the_same_only_if_all_their_numbers_are():
    first, second = _report(), _report()
    first["cost"]["rows"] = [_row(address="same#1"), _row(address="b#1"), _row(address="gone#1", macs=5)]
    second["cost"]["rows"] = [
        _row(address="same#1"), _row(address="b#1", saved_bytes=65), _row(address="new#1", macs=900),
    ]  # fmt: skip
    found, same = layer_differences(first, second)
    assert same == 1
    assert [each.address for each in found] == ["new#1", "b#1", "gone#1"]
    new, changed, gone = found
    assert (new.first_op, new.first_macs, new.second_macs) == ("", None, 900)
    assert (changed.first_saved_bytes, changed.second_saved_bytes) == (64, 65)
    assert (gone.second_shape, gone.first_shape) == (None, (2, 4, 8, 8))


@pytest.mark.parametrize("change", [{"address": "b#1"}, {"fault": "other"}])
def test_findings_are_the_same_by_fault_and_address(change):
    one = _report(checkup={"findings": [_finding("stale-statistics"), _finding("note", "info")]})
    other = copy.deepcopy(one)
    assert only_in(one, other) == []
    other["checkup"]["findings"][0].update(change)
    (told,) = only_in(one, other)
    assert (told.reading, told.severity, told.fault) == ("checkup", "warning", "stale-statistics")
    assert len(only_in(other, one)) == 1
    assert len(only_in(one, _report(checkup=None))) == 1

import pytest

from convscope.report.wording.formats import (
    FORMATS,
    MISSING,
    error,
    evidence,
    number,
    percent,
    ratio,
    seconds,
    shape,
    write,
)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_missing_is_a_dash_in_every_format(name):
    assert write(name, None) == MISSING


def test_a_zero_is_not_missing():
    assert [write(name, 0) for name in ("bytes", "count", "exact", "number", "percent")] == [
        "0 B", "0", "0", "0", "0.0 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0 ns"),
        (3e-9, "3 ns"),
        (1.234e-6, "1.23 µs"),
        (0.0123, "12.3 ms"),
        (0.999, "999 ms"),
        (59.9, "59.9 s"),
        (61, "1 min 1 s"),
    ],
)
def test_durations(value, written):
    assert seconds(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1, "1"),
        (1.0, "1"),
        (-0.16329850, "-0.1633"),
        (2.567e-15, "2.567e-15"),
        (98765.4, "98,765"),
        (1e20, "1e+20"),
    ],
)
def test_numbers_keep_four_significant_figures(value, written):
    assert number(value) == written


def test_shares_below_a_percent_keep_two_decimals():
    assert (percent(0.0023), percent(0.948), percent(1)) == ("0.23 %", "94.8 %", "100.0 %")


def test_ratios_shapes_and_errors():
    assert (ratio(1.256), shape((1, 3, 8)), shape(()), error(2.2e-16)) == (
        "1.26×",
        "1 × 3 × 8",
        "scalar",
        "2.2e-16",
    )


def test_the_unit_of_evidence_is_singular_for_one():
    assert evidence(1, "channels") == "1 channel"
    assert evidence(2, "channels") == "2 channels"
    assert evidence(1, "batches") == "1 batch"
    assert evidence(1.5, "loss") == "1.5 loss"


def test_a_share_is_written_in_percent_and_another_ratio_is_not():
    assert evidence(0.948, "1", "share of MACs") == "94.8 %"
    assert evidence(0.948, "1", "ratio") == "0.948"

"""The rule by which steps are chosen to be measured."""

from collections import Counter

from bench.gpu_rows import BATCHES, LAYOUTS, NETWORKS, OPTIMIZERS, PRECISIONS, Row, fields_of, row_of, rows


def test_there_are_at_least_sixty_different_ones():
    assert len(rows()) == len(set(rows())) == 66


def test_every_value_comes_up_equally_often():
    for name, values in (
        ("optimizer", OPTIMIZERS),
        ("precision", PRECISIONS),
        ("layout", LAYOUTS),
        ("batch", BATCHES),
        ("network", NETWORKS),
    ):
        counts = Counter(getattr(row, name) for row in rows())
        assert set(counts) == set(values)
        assert max(counts.values()) - min(counts.values()) <= 1
    setups = Counter((row.optimizer, row.precision, row.layout) for row in rows())
    assert sorted(setups.values()) == [5] * 6 + [6] * 6


def test_no_network_has_a_batch_twice():
    assert len({(row.network, row.batch) for row in rows()}) == 66


def test_a_short_run_measures_every_network():
    assert tuple(row.network for row in rows()[: len(NETWORKS)]) == NETWORKS


def test_a_row_is_its_plan_and_survives_a_file():
    row = Row("alexnet", 8, "adamw", "fp32", "channels-last")
    assert (row.plan.optimizer, row.plan.precision, row.plan.channels_last) == ("adamw", "fp32", True)
    assert row_of({**fields_of(row), "allocated_peak_bytes": 3}) == row
    assert row.label == "alexnet b8 adamw fp32 channels-last"

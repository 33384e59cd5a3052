"""Filtering, sorting and cutting the table; shares are of the whole network."""

import json

import pytest
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost import cost


@pytest.fixture(scope="module")
def found():
    features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 1, bias=False))
    net = nn.Sequential(features, nn.Flatten(), nn.Linear(8 * 16, 10, bias=False))
    return cost(net, (2, 3, 6, 6))


CONV1, CONV2, LINEAR = 2 * 16 * 8 * 27, 2 * 16 * 8 * 8, 2 * 10 * 128


def addresses(selection):
    return [row.address for row in selection.rows]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("convolution", ["0.0#1", "0.2#1"]),
        ("conv*", ["0.0#1", "0.2#1"]),
        ("Conv2d", ["0.0#1", "0.2#1"]),
        ("0", ["0.0#1", "0.1#1", "0.2#1"]),
        ("0.[12]", ["0.1#1", "0.2#1"]),
        ("2#1", ["2#1"]),
        ("self", ["self#1:_log_softmax.1", "self#1:nll_loss_forward.1"]),
    ],
)
def test_a_pattern_fits_operators_classes_addresses_and_modules(found, pattern, expected):
    assert addresses(found.where(pattern)) == expected


def test_several_patterns_are_alternatives_and_several_filters_all_hold(found):
    assert addresses(found.where("relu", "linear")) == ["0.1#1", "2#1"]
    assert addresses(found.where("convolution").where("0.2")) == ["0.2#1"]


def test_sorting(found):
    assert addresses(found.sorted_by("macs"))[:3] == ["0.0#1", "2#1", "0.2#1"]
    assert addresses(found.sorted_by("params").top(1)) == ["2#1"]
    ascending = found.sorted_by("macs", descending=False)
    assert addresses(ascending)[-3:] == ["0.2#1", "2#1", "0.0#1"]
    # Equal ones stay in order of execution.
    assert addresses(ascending)[:2] == ["0.1#1", "1#1"]


def test_sums_and_shares_are_beside_the_whole_networks(found):
    first = found.sorted_by("macs").top(1)
    whole = CONV1 + CONV2 + LINEAR
    assert (first.shown["macs"], first.totals["macs"]) == (CONV1, whole)
    assert first.share("macs") == pytest.approx(CONV1 / whole)
    assert first.share("index_bytes") == 0.0 or found.totals.index_bytes
    assert (first.num_rows, len(first.rows), first.is_whole) == (len(found.rows), 1, False)
    assert found.select().is_whole


def test_json_has_sums_and_rows(found):
    plain = json.loads(found.where("convolution").sorted_by("saved_bytes").to_json())
    assert plain["schema_version"] == 1
    assert plain["shown"]["macs"] == CONV1 + CONV2
    assert plain["totals"]["macs"] == CONV1 + CONV2 + LINEAR
    assert (plain["order"], plain["patterns"]) == ("saved_bytes", ["convolution"])
    assert "modules" not in plain


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda found: found.sorted_by("saved"), "column 'saved'.*did you mean 'saved_bytes'"),
        (lambda found: found.where("convolutoin"), "pattern 'convolutoin'.*did you mean 'convolution'"),
        (lambda found: found.where("zzz", "qqq"), "'zzz' or 'qqq', which no row matches"),
        (lambda found: found.select().top(0), "top 0"),
        (lambda found: found.select().share("flops"), "column 'flops'"),
    ],
)
def test_bad_words_are_one_line(found, do, message):
    with pytest.raises(ConvscopeError, match=message) as caught:
        do(found)
    assert "\n" not in str(caught.value)

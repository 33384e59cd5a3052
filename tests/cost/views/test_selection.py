"""Filtering, sorting and cutting the table; shares are of the whole network."""

import json

import pytest
import torch
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
    assert (first.num_rows, len(first.rows), first.is_whole) == (len(found.rows), 1, False)
    assert found.select().is_whole


def test_a_share_of_nothing_is_nothing():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    whole = cost(net, (2, 4), None).select()
    assert whole.totals["index_bytes"] == 0
    assert whole.share("index_bytes") == 0.0
    assert whole.share("macs") == 1.0


def test_a_cut_stays_a_cut(found):
    top = found.select().top(2)
    rolled = top.rolled_up(0)
    assert (top.is_whole, rolled.is_whole, rolled.is_cut) == (False, False, True)
    assert (top.num_rows, rolled.num_rows) == (len(found.rows), len(found.rows))
    assert rolled.share("macs") == pytest.approx(CONV1 / (CONV1 + CONV2 + LINEAR))
    matching = top.where("relu")
    assert (addresses(matching), matching.num_rows) == (["0.1#1"], len(found.rows))
    assert not top.where("*").is_whole
    # A cut that leaves everything is none.
    assert found.select().top(99).is_whole


def test_steps_are_kept_in_order_with_how_many_rows_they_left(found):
    steps = found.sorted_by("macs").top(3).where("convolution").steps
    assert [(step.kind, step.arguments, step.num_before, step.num_after) for step in steps] == [
        ("sorted_by", ("macs",), len(found.rows), len(found.rows)),
        ("top", (3,), len(found.rows), 3),
        ("where", ("convolution",), 3, 2),
    ]


@pytest.mark.parametrize("descending", [True, False])
def test_sums_of_sorted_rows_are_sorted_again(found, descending):
    first, second = CONV1 + CONV2, LINEAR
    rolled = found.sorted_by("macs", descending=descending).rolled_up(1)
    assert rolled.order == "macs"
    macs = [row.macs for row in rolled.rows if row.macs]
    assert macs == ([first, second] if descending else [second, first])
    # Of several calls the last one to run gives the shape, whatever they were sorted by.
    assert {row.address: row.output_shape for row in rolled.rows}["0"] == (2, 8, 4, 4)


def test_rolled_up_rows_have_the_last_calls_shape_in_whatever_order():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 2, 3)))
    whole = cost(net, (1, 3, 8, 8), None)
    assert whole.sorted_by("macs", descending=False).rolled_up(1).rows[0].output_shape == (1, 2, 4, 4)


def test_what_is_not_counted_stays_beside_a_part_of_the_table():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.unused = nn.Linear(3, 3), nn.Linear(3, 5)

        def forward(self, x):
            return torch.special.bessel_j0(self.layer(x))

    part = cost(Strange(), (2, 3), None, device="cpu").where("linear").top(1)
    plain = json.loads(part.to_json())
    assert [each["calls"] for each in plain["uncounted"]] == [1]
    assert "bessel_j0" in plain["uncounted"][0]["op"]
    assert (plain["device"], "assumptions" in plain) == ("cpu", True)
    assert [each.params for each in part.unused_parameters] == [15, 5]
    for text in (str(part), part._repr_html_()):
        for word in ("not counted: ", "bessel_j0", "unused: unused.weight, 15 parameters", "on cpu"):
            assert word in text, word


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

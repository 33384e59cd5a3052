"""Networks side by side: ratios by hand, and one that fails costs the others nothing."""

import csv
import io
import json

import pytest
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost import cost, side_by_side

REFUSED = ConvscopeError("network 'zfent'", "a known one", "try 'zfnet'")


def net(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, bias=False), nn.Flatten(), nn.Linear(16 * width, 10, bias=False)
    )


@pytest.fixture(scope="module")
def found():
    return side_by_side(
        {"narrow": cost(net(4), (2, 3, 6, 6)), "wrong": REFUSED, "wide": cost(net(12), (2, 3, 6, 6))}
    )


def test_numbers_and_ratios_by_hand(found):
    narrow, wide = found.networks
    macs = 2 * 16 * 4 * 27 + 2 * 10 * 64
    assert (narrow.name, wide.name) == ("narrow", "wide")
    assert narrow.summary.macs == macs
    assert narrow.summary.params == 4 * 27 + 640
    assert narrow.summary.stem_share == pytest.approx(16 * 4 / (16 * 4 + 10))
    assert narrow.summary.linear_share == pytest.approx(640 / (640 + 108))
    assert wide.ratios["macs"] == wide.ratios["params"] == 3.0
    assert set(narrow.ratios.values()) == {1.0}
    assert narrow.summary.rule_of_thumb_bytes == 2 * 4 * 2 * (64 + 10) + 3 * 4 * 748


def test_the_one_that_fails_is_named(found):
    assert [(each.name, each.reason) for each in found.refused] == [("wrong", str(REFUSED))]


def test_nothing_that_can_be_read_is_an_error():
    with pytest.raises(ConvscopeError, match="zfent"):
        side_by_side({"wrong": REFUSED})
    with pytest.raises(ConvscopeError, match="no networks"):
        side_by_side({})
    with pytest.raises(
        ConvscopeError, match=r"'narrow': an object of type tuple; expected a Cost .*cs\.cost\("
    ):
        side_by_side({"narrow": (None, (1, 8))})


def test_json_and_csv_say_the_same(found):
    plain = json.loads(found.to_json())
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [line["network"] for line in lines] == ["narrow", "wide"]
    for line, network in zip(lines, plain["networks"], strict=True):
        for name, value in network["summary"].items():
            if isinstance(value, int):
                assert int(line[name]) == value, name
    assert lines[0]["input_shapes"] == "2x3x6x6"


def test_inference_has_no_backward():
    found = side_by_side({"narrow": cost(net(4), (2, 3, 6, 6), None)})
    assert found.plan == "inference"
    assert found.networks[0].summary.backward_flops == found.networks[0].summary.saved_bytes == 0
    assert "backward_flops" not in found.networks[0].ratios

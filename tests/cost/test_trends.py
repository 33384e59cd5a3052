"""The notes' trends are computed from the table; those that a network can't have are absent."""

import pytest
from torch import nn

from convscope.cost import cost


def _trends(net, shape, plan=...):
    found = cost(net, shape) if plan is ... else cost(net, shape, plan)
    return found, {finding.fault: finding for finding in found.findings}


def _value(finding, name):
    return next(item.value for item in finding.evidence if item.name == name)


def test_shares_of_a_small_network_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 10))
    found, trends = _trends(net, (2, 3, 8, 8))
    conv_macs, fc_macs = 2 * 36 * 4 * 27, 2 * 36 * 10
    conv_params, fc_params = 4 * 27 + 4, 370
    outputs = 2 * (4 * 36 + 4 * 9 + 10)
    assert _value(trends["stem-share"], "share of activations") == pytest.approx(2 * 4 * 36 / outputs)
    assert _value(trends["stem-share"], "share of MACs") == pytest.approx(conv_macs / (conv_macs + fc_macs))
    assert _value(trends["fully-connected-share"], "share of parameters") == pytest.approx(
        fc_params / (conv_params + fc_params)
    )
    assert _value(trends["convolution-share"], "share of MACs") == pytest.approx(
        conv_macs / (conv_macs + fc_macs)
    )
    pool = 2 * 4 * 9 * 3
    operations = 2 * (conv_macs + fc_macs) + 2 * 4 * 36 + pool + 5 * 20 + 2
    assert _value(trends["pooling-share"], "share of operations") == pytest.approx(pool / operations)
    assert _value(trends["pooling-share"], "indices") == 8 * 2 * 4 * 9
    assert _value(trends["largest-activations"], "kept for backward") == sum(
        row.saved_bytes for row in found.rows if row.phase == "forward"
    )
    # The convolution keeps the image, 2·3·64 numbers; ReLU its result, 2·4·36.
    assert trends["largest-activations"].address == "0#1"
    assert {finding.severity for finding in found.findings} == {"info"}


MOST = {"most-activations", "most-parameters", "most-forward-flops", "most-saved-bytes"}


def test_network_of_one_kind_has_only_its_trends():
    _, trends = _trends(nn.Linear(8, 4), (2, 8))
    assert set(trends) - MOST == {
        "fully-connected-share", "largest-activations", "activations-against-parameters"
    }  # fmt: skip
    _, trends = _trends(nn.ReLU(), (2, 8), None)
    assert set(trends) - MOST == set()


@pytest.mark.parametrize(("batch", "word"), [(1, "less than"), (64, "similar to"), (4096, "more than")])
def test_activations_against_parameters(batch, word):
    _, trends = _trends(nn.Linear(64, 64, bias=False), (batch, 64))
    assert word in trends["activations-against-parameters"].why


def test_inference_keeps_nothing_so_says_nothing_about_it():
    _, trends = _trends(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (2, 3, 8, 8), None)
    assert "largest-activations" not in trends
    assert "indices" not in trends["pooling-share"].why
    for finding in trends.values():
        said = [finding.why, *(f"{item.name} {item.method}" for item in finding.evidence)]
        assert not any(word in text for text in said for word in ("backward", "kept", "indices")), said

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
    # Both findings that tell of kept bytes count the same rows, the loss among them.
    kept = _value(trends["largest-activations"], "kept for backward")
    most = trends["most-saved-bytes"]
    assert kept == sum(row.saved_bytes for row in found.rows)
    assert kept == pytest.approx(_value(most, most.address) / _value(most, f"share of {most.address}"))
    rows = len(found.rows)
    assert f"of {rows} rows" in trends["largest-activations"].why
    assert f"of {rows} rows" in most.why
    # The convolution keeps the image, 2·3·64 numbers; ReLU its result, 2·4·36.
    assert trends["largest-activations"].address == "0#1"
    assert {finding.severity for finding in found.findings} == {"info"}


def test_layers_that_are_but_numbers_are_called_by_their_kind_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
    _, trends = _trends(net, (2, 3, 10, 10))
    assert "; layer 3 (Linear) alone holds 2.89 k" in trends["fully-connected-share"].why
    assert trends["convolution-share"].why.endswith("layer 1 (Conv2d) does most")


def test_words_agree_with_their_numbers():
    # The linear layer keeps its input, 64 KiB, the loss its 2 × 2 logarithms.
    _, trends = _trends(nn.Linear(8192, 2, bias=False), (2, 8192))
    assert "belongs to the first of 3 rows" in trends["largest-activations"].why
    many = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(4)))
    _, trends = _trends(many, (2, 64))
    # 512 B each: the input, by the first row, and the outputs of four ReLUs and the softmax; 20 B of classes.
    assert "belongs to the first 6 of 10 rows" in trends["largest-activations"].why
    for finding in trends.values():
        assert "%" not in finding.why.replace(" %", "")  # one spelling of percent


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

"""Healthy networks and deliberate uses of batch norm alarm nobody, in either mode."""

import pytest
from bench.checkup_suite import deliberate, healthy
from bench.checkup_suite.planted import examine

# One of every family; `make zoo` checks all of them.
_BRIEF = {
    "resnet18", "resnetv2_18", "skresnet18", "vgg11_bn", "darknet17", "ese_vovnet19b_slim", "regnety_002",
    "repvgg_a0", "mobilenetv3_small_050", "mixnet_s", "ghostnet_050", "efficientnet_b0",
    "tv/shufflenet_v2_x0_5", "levit_128s", "mobilevit_xxs", "efficientvit_b0", "swiftformer_xs",
}  # fmt: skip
_FEWEST_NETWORKS, _FEWEST_UPDATES, _FEWEST_VALUES = 60, 44, 16


def _alarms(found):
    return [(f.fault, f.address, f.why) for f in found.findings if f.severity in ("error", "warning")]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, marks=pytest.mark.slow if case.name in _BRIEF else pytest.mark.whole_zoo, id=str(case)
        )
        for case in healthy.CASES
    ],
)
def test_networks(case):
    subject = case.make()
    found = examine(subject)
    # Otherwise the suite itself would be at fault.
    assert all(layer.num_batches_tracked >= _FEWEST_UPDATES for layer in found.layers)
    assert all(
        layer.effective_values is None or layer.effective_values >= _FEWEST_VALUES for layer in found.layers
    )
    assert _alarms(found) == []
    _assert_healthy_in_evaluation_mode(subject)


def _assert_healthy_in_evaluation_mode(subject):
    subject.model.eval()
    subject.data = subject.data[:1]
    assert _alarms(examine(subject)) == []


@pytest.mark.parametrize("case", deliberate.CASES, ids=str)
def test_deliberate_uses(case):
    assert _alarms(examine(case.make())) == []


def test_there_are_enough_networks_with_batch_norm():
    assert len(set(healthy.NETWORKS)) >= _FEWEST_NETWORKS
    assert set(healthy.NETWORKS) >= _BRIEF

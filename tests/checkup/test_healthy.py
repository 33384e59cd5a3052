"""Healthy networks and deliberate uses of batch norm alarm nobody, in either mode."""

import pytest
from bench.checkup_suite import deliberate, healthy
from bench.checkup_suite.planted import examine

_FEWEST_NETWORKS, _FEWEST_UPDATES, _FEWEST_VALUES = 60, 44, 16


def _alarms(found):
    return [(f.fault, f.address, f.why) for f in found.findings if f.severity in ("error", "warning")]


@pytest.mark.slow
@pytest.mark.parametrize("case", healthy.CASES, ids=str)
def test_networks(case):
    subject = case.make()
    found = examine(subject)
    # Otherwise the suite itself would be at fault.
    assert all(layer.num_batches_tracked >= _FEWEST_UPDATES for layer in found.layers)
    assert all(
        layer.effective_values is None or layer.effective_values >= _FEWEST_VALUES for layer in found.layers
    )
    assert _alarms(found) == []
    subject.model.eval()
    subject.data = subject.data[:1]
    assert _alarms(examine(subject)) == []


@pytest.mark.parametrize("case", deliberate.CASES, ids=str)
def test_deliberate_uses(case):
    assert _alarms(examine(case.make())) == []


def test_there_are_enough_networks_with_batch_norm():
    assert len(set(healthy.NETWORKS)) >= _FEWEST_NETWORKS

"""The confusion table counts what the check-up and torch-audit say, each of its own subject."""

import pytest
import torch
from bench.checkup_suite.planted import Planted, Subject
from torch import nn

from bench import checkup, checkup_audit, checkup_cost
from convscope.checkup import fault_names


def _subject(batch_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6, bias=False), nn.BatchNorm1d(6))
    images = torch.randn(64, 3, 2, 2)
    model(images)
    model[2].momentum = None
    return Subject(model, list(images.split(batch_size)))


def test_torch_audit_is_given_what_the_check_up_is_given():
    pytest.importorskip("torch_audit")
    assert ("TA304", "") in checkup_audit.audit(_subject(4))
    assert "TA304" not in {rule for rule, _ in checkup_audit.audit(_subject(16))}
    assert set(checkup_audit.RULES) <= set(fault_names())


def test_found_is_the_right_fault_at_the_right_place_with_the_right_remedy():
    def case(**changes):
        given = {
            "number": 11, "fault": "micro-batch", "network": "own", "healthy": lambda: _subject(32),
            "plant": lambda _: _subject(4), "address": "2#1", "remedy": "larger batches",
            "mend": lambda _: _subject(32),
        }  # fmt: skip
        return Planted(**{**given, **changes})

    rows, alarms = {}, checkup.defaultdict(checkup._Alarms)
    checkup._planted(case(), rows, alarms)
    checkup._planted(case(address="1#1"), rows, alarms)
    checkup._planted(case(remedy="prayer"), rows, alarms)
    checkup._planted(case(plant=lambda _: _subject(32)), rows, alarms)
    (row,) = rows.values()
    assert (row.planted, row.found, row.mended) == (4, 1, 1)
    assert alarms["before planting"].ours == 0
    assert alarms["planted, other faults"].ours == 0


def test_forward_passes_are_counted_in_samples():
    model = nn.Linear(3, 2)
    with checkup_cost._counting(model) as counts:
        model(torch.randn(5, 3))
        model(torch.randn(2, 3))
    model(torch.randn(7, 3))
    assert counts == [5, 2]

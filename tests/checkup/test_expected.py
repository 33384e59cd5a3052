"""Faults that are there on purpose are reported apart, within the block that declares them."""

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import faults
from convscope.checkup.expected import is_expected
from convscope.core.errors import ConvscopeError


def _two():
    return nn.Sequential(nn.BatchNorm2d(3, momentum=0.9), nn.BatchNorm2d(3, momentum=0.9))


def test_declared_faults_are_apart():
    model = nn.Sequential(nn.BatchNorm2d(3), _two())
    model[0].num_batches_tracked += 900
    with cs.expected("momentum-convention", "young-statistics", at="1.*"):
        found = cs.checkup(model)
    assert {fault for fault, _ in faults(found)} <= {"young-statistics"}
    assert {(each.fault, each.address) for each in found.expected} >= {
        ("momentum-convention", "1.0#1"),
        ("momentum-convention", "1.1#1"),
    }
    assert {fault for fault, _ in faults(cs.checkup(model))} >= {"momentum-convention"}
    assert "expected: momentum-convention at 1.0" in str(found)


def test_patterns_are_of_paths_and_addresses():
    with cs.expected("young-statistics", at="a.bn"):
        assert is_expected("young-statistics", "a.bn#1")
        assert is_expected("young-statistics", "a.bn#1:batch_norm.1")
        assert not is_expected("young-statistics", "a.bn2#1")
        assert not is_expected("stale-statistics", "a.bn#1")
    with cs.expected("young-statistics", at="a.bn#2"):
        assert is_expected("young-statistics", "a.bn#2")
        assert not is_expected("young-statistics", "a.bn#1")
    assert not is_expected("young-statistics", "a.bn#1")


def test_blocks_within_blocks_and_exceptions():
    with cs.expected("young-statistics"):
        with pytest.raises(RuntimeError), cs.expected("stale-statistics"):
            assert is_expected("stale-statistics", "x")
            assert is_expected("young-statistics", "x")
            raise RuntimeError
        assert not is_expected("stale-statistics", "x")
        assert is_expected("young-statistics", "x")
    assert not is_expected("young-statistics", "x")


@pytest.mark.parametrize(("names", "words"), [(("stale",), "'stale'"), ((), "no fault")])
def test_unknown_faults_are_refused(names, words):
    with pytest.raises(ConvscopeError, match=words), cs.expected(*names):
        pass


def test_what_is_expected_is_not_mended():
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.9))
    with cs.expected("momentum-convention", "young-statistics"):
        found = cs.checkup.mend(model, torch.randn(64, 3, 5, 5))
    assert found.model[0].momentum == 0.9
    assert "momentum-convention" not in [name for repair in found.mended for name in repair.faults]

"""Layers that are meant to be frozen are frozen last, and never with wrong statistics."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bench.checkup_suite.networks import ARCHITECTURES, grown, images, labels_of

from convscope import checkup
from convscope.checkup import mend
from convscope.checkup.mending.mend import _hidden
from convscope.checkup.mending.result import Mended

NORM = {"residual": "block1.bn1", "plain": "5"}


def _batches(number=320, size=32):
    pictures = images(number, seed=7)
    return list(zip(pictures.split(size), labels_of(pictures).split(size), strict=True))


def _loss(model, batches):
    """Mean cross-entropy in evaluation mode, by hand."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        total = sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in batches)
    return total / sum(len(x) for x, _ in batches)


def _inputs_mean(model, path, batches):
    """Mean of a layer's inputs in evaluation mode, by a hook."""
    model, seen = copy.deepcopy(model).eval(), []
    model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].double()))
    with torch.no_grad():
        for x, _ in batches:
            model(x)
    return torch.cat(seen).mean((0, 2, 3))


@pytest.fixture(params=sorted(ARCHITECTURES))
def stale(request):
    """A network with a layer that is frozen by its gradients alone, whose means are off; and its path."""
    model = grown(request.param)
    path = NORM[request.param]
    norm = model.get_submodule(path)
    norm.requires_grad_(False)
    with torch.no_grad():
        norm.running_mean += 2 * norm.running_var.sqrt()
    return model, path


@pytest.mark.parametrize("labelled", [True, False])
def test_statistics_are_right_before_they_are_frozen(stale, labelled):
    model, path = stale
    batches = _batches()
    healthy = grown("residual" if path == NORM["residual"] else "plain")
    found = mend(model, batches if labelled else [x for x, _ in batches])
    after = found.model.train().get_submodule(path)
    assert not after.training
    off = (_inputs_mean(found.model, path, batches) - after.running_mean) / after.running_var.sqrt()
    assert float(off.abs().max()) < 0.1
    assert _loss(found.model, batches) < _loss(healthy, batches) + 0.05
    assert {fault for fault, _ in found.gone} >= {"stale-statistics", "frozen-but-tracking"}
    assert (found.left, found.hidden) == ((), ())


def test_wrong_statistics_that_stay_are_not_frozen(stale):
    model, path = stale
    found = mend(model, _batches(12, 12))
    assert "stale-statistics" in [each.fault for each in found.before.findings]
    assert found.model.get_submodule(path).training
    reasons = {each.fault: each.reason for each in found.left}
    assert "it would keep wrong running statistics" in reasons["frozen-but-tracking"]
    assert not {"stale-statistics", "frozen-but-tracking"} & {fault for fault, _ in found.gone}


def test_young_statistics_are_not_frozen_without_data():
    model = grown("plain")
    model[5].reset_running_stats()
    model[5].requires_grad_(False)
    found = mend(model)
    assert found.model[5].training
    assert "young-statistics" in {each.fault: each.reason for each in found.left}["frozen-but-tracking"]


def test_what_is_not_judged_any_more_is_not_gone(stale):
    model, _ = stale
    before = checkup(model, _batches(64))
    after = replace(before, findings=before.findings[:1])
    frozen = Mended(("frozen-but-tracking",), (), "")
    hidden = _hidden(before, after, frozen)
    rest = [(f.fault, f.address) for f in before.findings[1:] if f.fault != "frozen-but-tracking"]
    assert list(hidden) == rest
    assert _hidden(before, after, replace(frozen, faults=("redundant-bias",))) == ()

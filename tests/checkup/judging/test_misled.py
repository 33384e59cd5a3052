"""Who is to blame: layers that are wrong themselves, before those that they mislead."""

import pytest
import torch

from checkup.grown import Small, grow, loader
from convscope.checkup.judging.misled import by_blame, misled_paths, to_blame
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.observed import LayerGap, Observation
from convscope.checkup.plan import CheckupPlan


def _observed(spoil):
    model = grow(Small())
    with torch.no_grad():
        spoil(model)
    return observe_data(Subject(model, None, None, None, CheckupPlan()), loader())


def test_layers_behind_a_wrong_one_are_misled():
    observed = _observed(lambda model: model.bn1.running_mean.add_(3))
    assert misled_paths(observed) == {"bn2", "bn3"}
    assert misled_paths(_observed(lambda model: None)) == frozenset()


def test_two_wrong_ones_are_both_to_blame():
    def spoil(model):
        model.bn1.running_mean.add_(3)
        model.bn3.running_var.mul_(9)

    assert misled_paths(_observed(spoil)) == {"bn2"}


def test_shares_of_the_misled_come_after_those_to_blame():
    observed = _observed(lambda model: model.bn1.running_mean.add_(3))
    shares = (
        LayerGap("bn2#1", "bn2", 0.9, 0.1),
        LayerGap("bn1#1", "bn1", 0.8, 0.1),
        LayerGap("bn3#1", "bn3", 0.1, 0.1),
    )
    found = by_blame(Observation(observed.norms, attribution=shares))
    assert [(share.path, share.misled) for share in found] == [("bn1", False), ("bn2", True), ("bn3", True)]
    assert to_blame(Observation(observed.norms, attribution=shares)).path == "bn1"


@pytest.mark.parametrize("share", [LayerGap("a#1", "a", 0.3, 0.1), LayerGap("a#1", "a", 0.3, None)])
def test_nobody_is_blamed_for_what_may_be_chance(share):
    assert to_blame(Observation((), attribution=(share,))) is None
    assert to_blame(Observation(())) is None

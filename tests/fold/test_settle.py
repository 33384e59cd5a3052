"""Bad folds among good ones: found, taken back and named, without costing the good ones."""

import dataclasses

import pytest
import torch
from torch import nn

from convscope.fold.plan import Fold, plan
from convscope.fold.settle import _Prover, settle
from convscope.fold.trials import described
from convscope.tape import record
from fold.nets import IMAGE


@pytest.fixture
def planned(randomised):
    layers = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()] * 1
    for _ in range(4):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()]
    net = randomised(nn.Sequential(*layers))
    folds = plan(record(net, IMAGE), net)
    assert all(isinstance(fold, Fold) for fold in folds)
    return net, folds


def broken(fold):
    """A fold that puts the wrong scale into the weights."""
    rule = dataclasses.replace(
        fold.layer.rule, scaled=lambda call, weight, scale: weight * scale.view(1, -1, 1, 1)
    )
    return dataclasses.replace(fold, layer=dataclasses.replace(fold.layer, rule=rule))


def test_all_good(planned):
    net, folds = planned
    settled = settle(net, folds, described(IMAGE, torch.float32))
    assert settled.folds == folds
    assert settled.undone == {}
    assert set(settled.comparison.at) == {fold.address for fold in folds}


@pytest.mark.parametrize("bad", [(0,), (2,), (1, 4), (0, 1, 2, 3, 4)])
def test_wrong_folds_are_taken_back(planned, bad):
    net, folds = planned
    mixed = tuple(broken(fold) if i in bad else fold for i, fold in enumerate(folds))
    settled = settle(net, mixed, described(IMAGE, torch.float32))
    assert set(settled.undone) == {folds[i].address for i in bad}
    assert all("taken back: with it values differ by" in reason for reason in settled.undone.values())
    assert settled.folds == tuple(fold for i, fold in enumerate(folds) if i not in bad)


def test_a_wrong_fold_that_the_outputs_hide_is_found_at_its_place(planned):
    net, folds = planned
    with torch.no_grad():
        net[3].weight.zero_()  # the second convolution ignores the first pair
    settled = settle(net, (broken(folds[0]),), described(IMAGE, torch.float32))
    assert settled.folds == ()


def test_network_that_fails_everywhere_keeps_everything(planned):
    net, folds = planned
    settled = settle(net, folds, described((2, 5, 6, 5), torch.float32))
    assert settled.folds == ()
    assert all("can't be proved: the network fails" in reason for reason in settled.undone.values())


class Casting(nn.Sequential):
    def forward(self, x):
        return super().forward(x).float().to(x.dtype)


@pytest.mark.parametrize(("network", "loses"), [(Casting, True), (nn.Sequential, False)])
def test_narrower_dtypes_inside_a_network_are_noticed(network, loses):
    net = network(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    prover = _Prover(net, described(IMAGE, torch.float32), torch.float64, 1e-9)
    assert prover._loses_digits() is loses

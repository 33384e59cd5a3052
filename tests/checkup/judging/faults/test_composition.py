"""Sorted batches and shared layers: what is beyond tolerance and doubt, and what isn't."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from checkup.grown import evidence, faults, grow, images
from checkup.judging.observed import norm, observation, shifted
from convscope import checkup
from convscope.checkup.judging.faults.composition import shared_over_domains, sorted_batches
from convscope.checkup.observed import CallShift, LoaderFacts, TrainingRun
from convscope.checkup.unchecked import Unchecked


def _in_order(number=128):
    x = torch.randn(number, 3)
    return list(x[x.sum(1).argsort()].split(16))


def _sorted(batches, *norms, **changes):
    return list(sorted_batches(observation(*norms, batches=batches, **changes)))


def test_batches_in_order_are_found_once_at_the_first_layer():
    batches = _in_order()
    shuffled = norm(shifted(128), address="a")
    (finding,) = _sorted(batches, shuffled, norm(batches, address="b"), norm(batches, address="c"))
    assert (finding.fault, finding.severity, finding.address) == ("sorted-batches", "warning", "b")
    assert evidence(finding, "layers") == 2
    assert "1 further layers" in finding.why
    assert finding.effect == evidence(finding, "variance of batch means over that of shuffled batches") / 2
    assert "the loader doesn't shuffle" not in finding.why


def test_a_loader_that_does_not_shuffle_is_named():
    batches = _in_order()
    (finding,) = _sorted(batches, norm(batches), loader=LoaderFacts(128, 16, 16, False, False))
    assert "the loader doesn't shuffle" in finding.why


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_batches_are_silent(seed):
    torch.manual_seed(seed)
    batches = shifted(256)
    assert _sorted(batches, norm(batches)) == []


def test_frozen_layers_and_those_of_several_images_a_sample_are_left_out():
    batches = _in_order()
    assert _sorted(batches, norm(batches, frozen=True)) == []
    assert _sorted(batches[:4], norm(batches)) == []


def test_differences_that_hardly_matter_are_silent():
    """Maps of many independent values: their batch means are sure to differ, by a twentieth of σ."""
    batches = [torch.randn(16, 3, 400) + 0.05 * (i - 3.5) / 2 for i in range(8)]
    assert _sorted(batches, norm(batches)) == []


def test_one_batch_shows_nothing():
    batches = shifted(16)
    (note,) = _sorted(batches, norm(batches))
    assert isinstance(note, Unchecked)


def _net():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.Linear(16, 3),
    )  # fmt: skip
    return grow(net, batches=300, make=lambda: images(32))


def test_sorted_batches_are_not_taken_for_small_ones():
    x = images(256)
    x = x[x.mean((1, 2, 3)).argsort()]
    data = DataLoader(TensorDataset(x), 32)
    found = faults(checkup(_net(), data))
    assert [fault for fault, _ in found if fault in ("sorted-batches", "micro-batch")] == ["sorted-batches"]
    shuffled = DataLoader(TensorDataset(x), 32, shuffle=True)
    assert faults(checkup(_net(), shuffled)) == []


def _calls(first, second, **changes):
    return norm(first, address="bn#1", **changes), norm(second, address="bn#2", **changes)


def test_a_shift_between_two_calls():
    (finding,) = shared_over_domains(observation(*_calls(shifted(256), shifted(256, by=2.0))))
    assert (finding.severity, finding.address) == ("warning", "bn#2")
    assert evidence(finding, "shift between two calls") == pytest.approx(2.0, abs=0.25)
    assert finding.effect == pytest.approx((2 - 5 * 0.09) / 0.5, rel=0.25)


def test_another_scale_in_one_of_three_calls():
    calls = (*_calls(shifted(256), shifted(256)), norm(shifted(256, scale=4.0), address="bn#3"))
    (finding,) = shared_over_domains(observation(*calls))
    assert finding.address == "bn#3"
    assert evidence(finding, "calls") == 3
    assert evidence(finding, "difference of log variances") == pytest.approx(2.8, abs=0.4)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("number", [4, 16, 256])
def test_calls_on_one_distribution_are_silent(seed, number):
    torch.manual_seed(seed)
    calls = _calls(shifted(number, by=5.0), shifted(number, by=5.0))
    assert list(shared_over_domains(observation(*calls))) == []


@pytest.mark.parametrize("changes", [{"frozen": True}, {"running_mean": None}, {"training": None}])
def test_layers_without_a_mixture_are_silent(changes):
    calls = _calls(shifted(256), shifted(256, by=3.0), **changes)
    assert list(shared_over_domains(observation(*calls))) == []


def _run(shift, error, log_variance=0.0):
    return TrainingRun(9, call_shifts=(CallShift("self", shift, error, log_variance, 2, 0.01, (1, 2), 5),))


def test_a_shift_that_was_watched():
    (finding,) = shared_over_domains(observation(norm(), run=_run(1.5, 0.1)))
    assert finding.effect == pytest.approx(2.0)
    assert finding.address == "self"
    assert "in a training step" in finding.why
    assert list(shared_over_domains(observation(norm(), run=_run(0.0, 0.1, 2.0)))) != []


@pytest.mark.parametrize(("shift", "error"), [(0.4, 0.0), (1.5, 0.25), (0.9, 0.1)])
def test_watched_shifts_within_tolerance_or_doubt(shift, error):
    assert list(shared_over_domains(observation(norm(), run=_run(shift, error)))) == []


def test_the_same_layer_is_reported_once():
    calls = _calls(shifted(256), shifted(256, by=2.0))
    assert len(list(shared_over_domains(observation(*calls, run=_run(1.5, 0.1))))) == 1

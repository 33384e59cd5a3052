"""Residuals against their definition, and their standard errors against repeated sampling."""

import math

import pytest
import torch
from torch import nn

from convscope.checkup.judging.residuals import residuals, student
from convscope.checkup.measuring.describe import Roster
from convscope.checkup.measuring.population import Pool


def _norm(channels=64, **settings):
    return nn.BatchNorm2d(channels, **settings)


def _found(layer, batches):
    pool = Pool()
    for batch in batches:
        pool.add(batch, batch)
    return residuals(Roster(nn.Sequential(layer)).from_module("0"), pool.population())


def test_residuals_are_mean_and_log_variance_of_normalised_inputs():
    layer = _norm(3, eps=0.5).eval()
    layer.running_mean.copy_(torch.tensor([0.0, 1.0, -2.0]))
    layer.running_var.copy_(torch.tensor([1.0, 4.0, 0.25]))
    x = torch.randn(20, 3, 6, 5) * 2 + 1
    found = _found(layer, x.split(8))
    normalised = layer(x).double()
    assert torch.allclose(found.mean, normalised.mean((0, 2, 3)).detach(), atol=1e-6)
    spread = (x.double().var((0, 2, 3)) + 0.5) / (layer.running_var.double() + 0.5)
    assert torch.allclose(found.variance, spread.log(), atol=1e-6)


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_standard_errors_are_the_scatter_of_right_statistics(momentum):
    mean_scores, variance_scores = [], []
    for _ in range(12):
        layer = _norm(64, momentum=momentum)
        for _ in range(80):
            layer(_images(16))
        found = _found(layer, [_images(16) for _ in range(4)])
        mean_scores.append(found.mean / found.mean_error)
        variance_scores.append(found.variance / found.variance_error)
        assert not found.stale.any()
    assert float(torch.cat(mean_scores).std()) == pytest.approx(1, abs=0.15)
    assert float(torch.cat(variance_scores).std()) == pytest.approx(1, abs=0.2)


def _images(number):
    """Pixels of one image share a part, so that they aren't independent."""
    return torch.randn(number, 64, 4, 3) + torch.randn(number, 64, 1, 1)


def test_a_wrong_statistic_is_stale_and_its_size_in_tolerances():
    layer = _norm(4)
    layer.running_mean[2] = 3.0
    found = _found(layer, torch.randn(128, 4, 3, 3).split(32))
    assert found.stale.tolist() == [False, False, True, False]
    assert found.size == pytest.approx(3 / 0.5, rel=0.1)


def test_too_few_images_leave_doubt():
    layer = _norm(4)
    layer.running_mean[2] = 3.0
    assert not _found(layer, [torch.randn(2, 4, 3, 3)]).stale.any()
    assert not _found(layer, [torch.randn(1, 4, 3, 3)]).stale.any()


def test_constant_channels_have_no_variance_to_compare():
    found = _found(_norm(2), [torch.zeros(64, 2, 3, 3)])
    assert found.variance.tolist() == [0.0, 0.0]
    assert not found.stale.any()


# Upper quantiles of Student's t at the one-sided probability of five standard deviations, 2.87e-7
# (scipy.stats.t.isf(norm.sf(5), ν)).
@pytest.mark.parametrize(("freedom", "quantile"), [(15, 8.2673), (31, 6.2682), (63, 5.5654), (255, 5.1303)])
def test_quantiles_ofstudent(freedom, quantile):
    assert student(5.0, freedom) == pytest.approx(quantile, rel=0.005)


def test_quantiles_for_few_images_are_on_the_safe_side():
    assert 31.85 < student(5.0, 5) < 1.1 * 31.85
    assert student(5.0, 0) == math.inf


def test_channels_whose_variance_rests_on_rare_images_are_not_stale_for_want_of_them():
    # Every channel lives on one image in 50; running statistics have seen them all, 80 images by chance none.
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(200)
    is_rare = torch.rand(4000, 200) < 0.02
    x = torch.where(is_rare, 20.0, 1.0)[..., None, None] * torch.randn(4000, 200, 3, 3)
    layer.running_mean.copy_(x.mean((0, 2, 3)))
    layer.running_var.copy_(x.var((0, 2, 3)))
    pool = Pool()
    pool.add(x[:80], x[:80])
    call = Roster(nn.Sequential(layer)).from_module("0")
    found = residuals(call, pool.population())
    unlucky = ~is_rare[:80].any(0)
    assert 20 < int(unlucky.sum()) < 60
    # Their own 80 images say that their variance is known to some percent, and it is a fraction of the other.
    assert found.variance[unlucky].max() < -1.5
    assert not found.stale.any()
    # With all rare images gone, the running variance is too large beyond doubt.
    pool = Pool()
    calm = torch.randn(80, 200, 3, 3)
    pool.add(calm, calm)
    assert residuals(call, pool.population()).stale.all()

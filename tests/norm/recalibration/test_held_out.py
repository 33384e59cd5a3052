"""The held-out loss decides."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration import HeldOut
from convscope.norm.recalibration.held_out import LossPairs, paired
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import unchanged


class Shifted(nn.Module):
    """A classifier that is right with its old statistics and wrong with those of other data."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(2, affine=False)

    def forward(self, x):
        return 10 * self.bn(x)


def test_a_worse_held_out_loss_keeps_the_old_statistics():
    net = Shifted()
    x = torch.randn(40, 2)
    labels = x.argmax(1)
    elsewhere = torch.randn(40, 2) + torch.tensor([5.0, -5.0])
    before = state_of(net)
    found = recalibrate(net, elsewhere, held_out=[(x[:30], labels[:30]), (x[30:], labels[30:])])
    unchanged(net, before)
    assert not found.applied
    with torch.no_grad():
        old = F.cross_entropy(net.eval()(x).double(), labels).item()
        net.bn.running_mean.copy_(elsewhere.mean(0))
        net.bn.running_var.copy_(elsewhere.var(0))
        each = F.cross_entropy(net(x).double(), labels, reduction="none")
    assert found.held_out.before == pytest.approx(old, rel=1e-6)
    assert found.held_out.after == pytest.approx(each.mean().item(), rel=1e-4)
    assert found.held_out.num_samples == 40
    assert "the held-out loss would rise" in found.reason
    found.undo()


def test_a_better_held_out_loss_applies_the_new_statistics():
    net, x = Shifted(), torch.randn(200, 2) + torch.tensor([5.0, -5.0])
    labels = (x - torch.tensor([5.0, -5.0])).argmax(1)
    loss = lambda outputs, labels: F.cross_entropy(outputs, labels)  # noqa: E731
    found = recalibrate(net, x[:100], held_out=(x[100:], labels[100:]), loss=loss)
    assert found.applied
    assert found.held_out.error is None
    assert found.held_out.after < found.held_out.before
    assert net.bn.running_mean[0] > 4


def test_held_out_data_that_cannot_be_judged():
    net, x = Shifted(), torch.randn(20, 2)
    before = state_of(net)
    for held_out, loss, message in (
        (x, None, "without a loss"),
        ([], lambda outputs, labels: outputs.sum(), "held-out data without a single batch"),
        ((x, torch.zeros(20)), lambda outputs, labels: outputs, "loss returned Tensor of shape"),
        (x, lambda outputs: outputs.sum(), "loss failed on the model's outputs"),
    ):
        with pytest.raises(ConvscopeError, match=message):
            recalibrate(net, x, held_out=held_out, loss=loss)
        unchanged(net, before)


def test_the_standard_error_is_paired():
    """Large differences between samples don't hide a small one between settings."""
    generator = torch.Generator().manual_seed(0)
    before = 10 * torch.rand(50, generator=generator, dtype=torch.float64)
    after = before + 0.1 + 0.01 * torch.randn(50, generator=generator, dtype=torch.float64)
    pairs = LossPairs()
    pairs.add(before[:20], after[:20], num_samples=20)
    pairs.add(before[20:], after[20:], num_samples=30)
    found = paired([pairs.rows])
    assert found.before == pytest.approx(before.mean().item())
    assert found.error == pytest.approx((after - before).std().item() / 50**0.5)
    assert found.is_worse


def test_batches_weigh_by_their_samples():
    first, second = LossPairs(), LossPairs()
    first.add(torch.tensor(1.0), torch.tensor(2.0), num_samples=30)
    second.add(torch.tensor(5.0), torch.tensor(5.0), num_samples=10)
    found = paired([first.rows, second.rows])
    assert (found.before, found.after, found.num_samples) == (2.0, 2.75, 40)


def test_what_counts_as_worse():
    assert not HeldOut(1.0, 1.15, 0.1, 9).is_worse
    assert HeldOut(1.0, 1.25, 0.1, 9).is_worse
    assert HeldOut(1.0, 1.001, None, 9).is_worse
    assert not HeldOut(1.0, 1.0, None, 9).is_worse
    assert HeldOut(1.0, math.nan, None, 9).is_worse
    assert not HeldOut(math.nan, 1.0, None, 9).is_worse
    assert not HeldOut(math.nan, math.nan, None, 9).is_worse

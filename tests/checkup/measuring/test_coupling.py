"""Losses that compare samples are told from sums over samples, whatever those are divided by."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkup.grown import images
from convscope.checkup.measuring.coupling import loss_coupling
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.plan import CheckupPlan

_LABELS = torch.randint(0, 5, (12,), generator=torch.Generator().manual_seed(0))


def _info_nce(out, _):
    one, other = F.normalize(out, dim=1).chunk(2)
    return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one)))


def _focal_by_positives(out, labels):
    """Divided by a sum over outputs: a factor that all samples have in common."""
    p = out.softmax(1).gather(1, labels[:, None])
    return ((1 - p) ** 2 * -p.log()).sum() / p.detach().sum()


def _pairwise_ranking(out, labels):
    score = out[:, 0]
    return F.softplus(score[None] - score[:, None])[labels[:, None] > labels[None]].mean()


def _variance(out, _):
    return F.relu(1 - out.var(0).add(1e-4).sqrt()).mean()


def _entropy_of_mean(out, _):
    mean = out.softmax(1).mean(0)
    return (mean * mean.log()).sum()


_WEIGHTS = torch.tensor([1.0, 5.0, 0.2, 1.0, 3.0])
SUMS = {
    "cross-entropy": F.cross_entropy,
    "weighted": lambda out, y: F.cross_entropy(out, y, weight=_WEIGHTS),
    "smoothed": lambda out, y: F.cross_entropy(out, y, label_smoothing=0.1),
    "summed": lambda out, y: F.cross_entropy(out, y, reduction="sum"),
    "ignoring": lambda out, y: F.cross_entropy(out, torch.where(y == 1, -100, y)),
    "squares": lambda out, y: F.mse_loss(out[:, 0], y.float()),
    "probabilities": lambda out, y: F.binary_cross_entropy(out.sigmoid()[:, 0], (y > 2).float()),
    "divided by a sum over outputs": _focal_by_positives,
    "with dropout": lambda out, y: F.cross_entropy(F.dropout(out, 0.2), y),
}
COMPARING = {
    "contrastive": _info_nce, "ranking": _pairwise_ranking, "variance": _variance,
    "entropy of the mean": _entropy_of_mean,
}  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("seed", range(3))
def test_sums_over_samples(name, seed):
    outputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))
    assert loss_coupling(SUMS[name], outputs, _LABELS) < 1e-5


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("seed", range(3))
def test_losses_that_compare(name, seed):
    outputs = 0.5 * torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))
    assert loss_coupling(COMPARING[name], outputs, _LABELS) > 5e-3


def test_probabilities_stay_probabilities():
    outputs = torch.rand(8, 3)
    assert (
        loss_coupling(lambda out, _: F.binary_cross_entropy(out, torch.ones_like(out)), outputs, None) < 1e-5
    )


def test_several_outputs_are_one_network_s():
    outputs = {"a": torch.randn(6, 3), "b": torch.randn(6, 4), "n": 3}
    assert loss_coupling(lambda o, _: o["a"].square().sum() + o["b"].exp().sum(), outputs, None) < 1e-5
    assert loss_coupling(lambda o, _: (o["a"].sum() * o["b"]).square().sum(), outputs, None) > 5e-3


@pytest.mark.parametrize(
    "loss", [lambda o, _: torch.zeros(()), lambda o, _: (0 * o).sum(), lambda o, _: (o * torch.nan).sum()]
)
def test_nothing_to_tell_by(loss):
    assert loss_coupling(loss, torch.randn(6, 3), None) is None


def test_nothing_to_compare():
    assert loss_coupling(_info_nce, torch.randn(1, 3), None) is None
    assert loss_coupling(_info_nce, "text", None) is None
    assert loss_coupling(None, torch.randn(6, 3), None) == 0.0


def test_in_a_check_up_nothing_is_left_behind():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    data = [(images(12), torch.zeros(12).long())] * 2
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = observe_data(Subject(net, _info_nce, None, None, CheckupPlan()), data)
    assert found.loss_coupling > 0.1
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert observe_data(Subject(net, None, None, None, CheckupPlan()), data).loss_coupling == 0.0
    assert observe_data(Subject(net, None, None, None, CheckupPlan()), images(12)).loss_coupling is None

"""Cross-entropy and the paired gap against explicit sums."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from convscope.checkup.measuring.criterion import users_loss
from convscope.checkup.measuring.gap_meter import GapMeter
from convscope.checkup.measuring.losses import default_loss, has_class_labels, valid_positions
from convscope.checkup.measuring.outputs import tensors_of
from convscope.core.errors import ConvscopeError


def _by_hand(logits, label):
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


def test_default_loss_is_each_samples_cross_entropy():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    expected = [_by_hand(row, label) for row, label in zip(logits.tolist(), labels.tolist())]
    assert default_loss({"aux": 1, "logits": logits}, labels).tolist() == pytest.approx(expected)


def test_default_loss_of_maps_is_the_mean_over_positions():
    logits, labels = torch.randn(2, 3, 2, 1), torch.tensor([[[0], [2]], [[1], [1]]])
    expected = [
        sum(_by_hand(logits[n, :, h, 0].tolist(), int(labels[n, h, 0])) for h in (0, 1)) / 2 for n in (0, 1)
    ]
    assert default_loss(logits, labels).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), "labels from 0 to 3 for 3 classes"),
        (torch.tensor([-1, 0]), "labels from -1 to 0"),
        (torch.tensor([0, 1, 2]), "labels of shape (3,) for logits of shape (2, 3)"),
        (torch.tensor([[0], [1]]), "labels of shape (2, 1) for logits of shape (2, 3)"),
    ],
)
def test_labels_that_cannot_be(labels, words):
    with pytest.raises(ConvscopeError) as raised:
        default_loss(torch.randn(2, 3), labels)
    assert words in str(raised.value)


def test_what_counts_as_class_labels():
    for labels in (torch.tensor([1, 2], dtype=torch.uint8), [1, 2], np.array([1, 2])):
        assert has_class_labels(labels)
    for other in (
        torch.tensor([1.0]),
        torch.tensor([True]),
        torch.tensor(3),
        [1.0, 2],
        [],
        np.zeros(2),
        None,
    ):
        assert not has_class_labels(other)


def _meter(*batches):
    """A meter of batches: losses before and after, and what they weigh (1 each if not given)."""
    meter = GapMeter()
    for before, after, *weights in batches:
        (weight,) = weights or (torch.ones_like(before),)
        meter.add(before, after, weight, len(before))
    return meter


def test_the_gap_is_paired_and_its_error_is_between_batches():
    """Batches of 5 and 7 whose samples move together: that of two values beside that of twelve."""
    before, after = torch.rand(12, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    before[:5] += 2
    gap = _meter((before[:5], after[:5]), (before[5:], after[5:])).gap()
    differences = (before - after).numpy()
    off = np.array([differences[:5].sum(), differences[5:].sum()]) - differences.mean() * np.array([5, 7])
    assert gap.difference == pytest.approx(differences.mean())
    of_batches, of_samples = math.sqrt((off**2).sum() * 2) / 12, differences.std(ddof=1) / math.sqrt(12)
    assert gap.error == pytest.approx(math.hypot(of_batches, of_samples))
    assert of_batches > 1.2 * of_samples
    assert (gap.eval_loss, gap.batch_loss) == pytest.approx((float(before.mean()), float(after.mean())))


def test_batches_that_agree_by_chance_do_not_make_a_gap_sure():
    """Batches whose samples balance each other: by chance where there are few."""
    each = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    few, many = (_meter(*[(each + b * 1e-3, each * 0) for b in range(n)]).gap() for n in (3, 10))
    assert few.error == pytest.approx(float(each.repeat(3).std()) / math.sqrt(12), rel=1e-3)
    assert many.error == pytest.approx(np.arange(10).std(ddof=1) * 1e-3 / math.sqrt(10), rel=1e-3)


def test_doubt_is_students_and_bounded_by_what_samples_show():
    """Two means that are alike by chance convict nobody; the samples of two batches can."""
    means = _meter(*[(torch.tensor([2.0 + b * 1e-3]), torch.zeros(1)) for b in range(2)]).gap()
    assert means.difference > 100 * means.error
    assert not means.is_significant
    eight = _meter(*[(torch.tensor([2.0 + b]), torch.zeros(1)) for b in range(8)]).gap()
    two_sided = 2 * stats.norm.sf(4)
    assert eight.doubt == pytest.approx(stats.t.isf(two_sided / 2, 7) * eight.error, rel=0.05)
    samples = [(2 + torch.randn(32) * 0.1, torch.zeros(32)) for _ in range(2)]
    for number, errors in ((1, 12), (2, stats.t.isf(stats.norm.sf(3), 4))):
        found = _meter(*samples[:number]).gap()
        assert found.doubt == pytest.approx(errors * found.error, rel=0.1)
        assert found.is_significant


def test_gap_of_mean_losses_weighs_batches_by_their_samples():
    first, second = [(torch.tensor([3.0]), torch.tensor([1.0])), (torch.tensor([8.0]), torch.tensor([2.0]))]
    assert _meter(first).gap().error is None
    gap = _meter((*first, torch.tensor([30.0])), (*second, torch.tensor([10.0]))).gap()
    assert gap.difference == pytest.approx((30 * 2 + 10 * 6) / 40)
    assert gap.error == pytest.approx(math.sqrt(2 * ((30 * 1) ** 2 + (10 * 3) ** 2)) / 40)
    assert GapMeter().gap() is None


def test_ignored_positions_weigh_nothing():
    """As in PyTorch's own loss, which is a mean over all positions that have a label."""
    logits, labels = torch.randn(6, 4, 3, 5), torch.randint(0, 4, (6, 3, 5))
    labels[:2, 1:], labels[3] = -100, -100
    each, weights = default_loss(logits, labels), valid_positions(labels)
    assert weights.tolist() == [5, 5, 15, 0, 15, 15]
    assert float(each[0]) == pytest.approx(float(nn.CrossEntropyLoss()(logits[:1].double(), labels[:1])))
    gap = _meter((each, each * 0, weights)).gap()
    assert gap.eval_loss == pytest.approx(float(nn.CrossEntropyLoss()(logits.double(), labels)))
    kept = labels.flatten(1).ne(-100).any(1)
    assert gap.error == pytest.approx(_meter((each[kept], each[kept] * 0, weights[kept])).gap().error)
    meter = GapMeter()
    assert not meter.add(each, each, torch.zeros(6), 6)
    assert (meter.gap(), meter.num_batches, meter.num_samples) == (None, 0, 0)


@pytest.mark.parametrize("make", [list, np.array])
def test_labels_may_be_a_list_or_an_array(make):
    logits, labels = torch.randn(4, 3), [0, 2, 1, -100]
    expected = default_loss(logits, torch.tensor(labels))
    assert torch.equal(default_loss(logits, make(labels)), expected)
    assert valid_positions(make(labels)).tolist() == [1, 1, 1, 0]


def test_labels_of_another_length_are_told_beside_the_logits():
    with pytest.raises(ConvscopeError, match=r"labels of shape \(3,\) for logits of shape \(4, 2\)"):
        default_loss(torch.randn(4, 2), torch.tensor([0, 1, 1]))
    with pytest.raises(ConvscopeError, match="for outputs without logits"):
        default_loss(torch.randn(4), torch.tensor([0, 1, 1, 0]))


def test_a_users_loss():
    assert float(users_loss(lambda outputs, labels: (outputs * labels).sum(), torch.ones(2), 3.0)) == 6
    with pytest.raises(ConvscopeError, match=r"loss failed .*KeyError"):
        users_loss(lambda outputs, labels: outputs[{}["logits"]], torch.ones(2), None)
    with pytest.raises(ConvscopeError, match="loss returned float"):
        users_loss(lambda outputs, labels: 1.0, torch.ones(2), None)


def test_tensors_of_every_kind_of_output():
    one, two = torch.ones(1), torch.ones(2)
    for outputs in ([one, (two, 3)], {"a": one, "b": [two]}, SimpleNamespace(a=one, b=two, c=None)):
        assert [len(t) for t in tensors_of(outputs)] == [1, 2]
    assert tensors_of(torch.ones(1, dtype=torch.long)) == []

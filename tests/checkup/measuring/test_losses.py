"""Cross-entropy and the paired gap against explicit sums."""

import math
from types import SimpleNamespace

import pytest
import torch

from convscope.checkup.measuring.losses import GapMeter, default_loss, has_class_labels, loss_of, tensors_of
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
        (torch.tensor([0, 1, 2]), "labels of shape (3,) for logits of shape None"),
        (torch.tensor([[0], [1]]), "labels of shape (2, 1) for logits of shape (2, 3)"),
    ],
)
def test_labels_that_cannot_be(labels, words):
    with pytest.raises(ConvscopeError) as raised:
        default_loss(torch.randn(2, 3), labels)
    assert words in str(raised.value)


def test_what_counts_as_class_labels():
    assert has_class_labels(torch.tensor([1, 2], dtype=torch.uint8))
    for other in (torch.tensor([1.0]), torch.tensor([True]), torch.tensor(3), [1, 2], None):
        assert not has_class_labels(other)


def test_gap_is_paired_over_samples():
    before, after = torch.rand(12, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    meter = GapMeter()
    meter.add(before[:5], after[:5], 5)
    meter.add(before[5:], after[5:], 7)
    gap = meter.gap()
    assert gap.difference == pytest.approx(float((before - after).mean()))
    assert gap.error == pytest.approx(float((before - after).std() / math.sqrt(12)))
    assert (gap.eval_loss, gap.batch_loss) == pytest.approx((float(before.mean()), float(after.mean())))


def test_gap_of_mean_losses_weighs_batches_by_their_samples():
    meter = GapMeter()
    meter.add(torch.tensor(3.0), torch.tensor(1.0), 30)
    assert meter.gap().error is None
    meter.add(torch.tensor(8.0), torch.tensor(2.0), 10)
    assert meter.gap().difference == pytest.approx((30 * 2 + 10 * 6) / 40)
    assert meter.gap().error > 0
    assert GapMeter().gap() is None


def test_a_users_loss():
    assert float(loss_of(lambda outputs, labels: (outputs * labels).sum(), torch.ones(2), 3.0)) == 6
    with pytest.raises(ConvscopeError, match=r"loss failed .*KeyError"):
        loss_of(lambda outputs, labels: outputs[{}["logits"]], torch.ones(2), None)
    with pytest.raises(ConvscopeError, match="loss returned float"):
        loss_of(lambda outputs, labels: 1.0, torch.ones(2), None)


def test_tensors_of_every_kind_of_output():
    one, two = torch.ones(1), torch.ones(2)
    for outputs in ([one, (two, 3)], {"a": one, "b": [two]}, SimpleNamespace(a=one, b=two, c=None)):
        assert [len(t) for t in tensors_of(outputs)] == [1, 2]
    assert tensors_of(torch.ones(1, dtype=torch.long)) == []

"""One batch or two, whose are the labels, and that a run changes nothing of the user's."""

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.probe.batches import batches_of
from convscope.probe.forms import settled

IMAGES = torch.randn(6, 3, 5, 4)
DENOISER, CLASSIFIER = nn.Conv2d(3, 3, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(60, 5))


class _Two(nn.Module):
    def forward(self, left, right):
        return left + right


class _Labelled(nn.Module):
    def forward(self, image, labels=None):
        return {"logits": image, "loss": labels}


def _sizes(model, data, has_loss=False):
    settled_data = settled(model, data, has_loss=has_loss)
    return [(batch.num_samples, batch.labels is not None) for batch in batches_of(model, settled_data)]


@pytest.mark.parametrize(
    ("model", "data", "has_loss", "expected"),
    [
        (DENOISER, (IMAGES, IMAGES + 1), False, [(6, True)]),
        (CLASSIFIER, (IMAGES, IMAGES + 1), True, [(6, True)]),
        (CLASSIFIER, IMAGES.split(3), False, [(3, False), (3, False)]),
        (CLASSIFIER, (IMAGES, IMAGES[:2]), True, [(6, False), (2, False)]),
        (CLASSIFIER, [IMAGES, IMAGES], True, [(6, False), (6, False)]),
        (DENOISER, IMAGES.split(2), True, [(2, False)] * 3),
        (nn.Linear(4, 1), (torch.randn(6, 4), torch.randn(6, 1)), False, [(6, True)]),
        (nn.Linear(4, 4), (torch.randn(6, 4), torch.randn(6, 1, 2, 2)), False, [(6, True)]),
        (_Two(), (IMAGES, IMAGES), True, [(6, False)]),
        (DENOISER, (IMAGES, torch.arange(6)), False, [(6, True)]),
    ],
)
def test_two_tensors_are_one_batch_or_two(model, data, has_loss, expected):
    assert _sizes(model, data, has_loss) == expected


def test_a_network_that_fails_is_told_so_later():
    broken = nn.Linear(7, 7)
    assert len(settled(broken, (IMAGES, IMAGES), has_loss=False)) == 2


def test_inputs_side_by_side_are_told_from_labels():
    with pytest.raises(ConvscopeError, match=r"yield \(\(a, b\), labels\)"):
        list(batches_of(_Two(), [(IMAGES, IMAGES, torch.arange(6))]))


def test_a_network_gets_labels_that_it_has_a_name_for():
    labels = torch.arange(6)
    (batch,) = batches_of(_Labelled(), {"image": IMAGES, "labels": labels})
    assert (batch.kwargs["labels"] is labels, batch.labels is labels, batch.has_given_labels) == (True,) * 3
    assert torch.equal(batch.first(2).kwargs["labels"], labels[:2])
    (other,) = batches_of(_Labelled(), {"image": IMAGES, "target": labels})
    assert (list(other.kwargs), other.has_given_labels) == (["image"], False)


def test_every_run_gets_inputs_of_its_own():
    images = IMAGES.clone().requires_grad_()
    tokens = torch.arange(6)
    batch = next(iter(batches_of(nn.Identity(), {"input": images, "other": tokens})))
    seen = []

    def in_place(**inputs):
        seen.append(inputs["input"].clone())
        inputs["input"].add_(1)

    for _ in range(2):
        batch.run(in_place)
    assert torch.equal(seen[0], IMAGES)
    assert torch.equal(seen[1], IMAGES)
    assert not seen[0].requires_grad
    assert torch.equal(images, IMAGES)

"""Batches of several inputs, and of images one by one."""

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.probe.batches import batches_of


class _Two(nn.Module):
    def forward(self, left, right):
        return left + right


class _Tuple(nn.Module):
    def forward(self, pair):
        return pair[0] + pair[1]


@pytest.mark.parametrize("outer", [lambda batch: batch, lambda batch: [batch, batch]])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_of_inputs_is_the_arguments_of_a_network_that_takes_them(outer, kind):
    left, right, labels = torch.rand(5, 3), torch.rand(5, 3), torch.arange(5)
    data = outer((kind((left, right)), labels))
    for batch in batches_of(_Two(), data):
        assert [torch.equal(a, b) for a, b in zip(batch.args, (left, right), strict=True)] == [True, True]
        assert (batch.num_samples, batch.labels.tolist()) == (5, [0, 1, 2, 3, 4])
    assert all(len(batch.args) == 1 for batch in batches_of(_Tuple(), data))


def test_too_many_inputs_are_one_clear_line():
    with pytest.raises(ConvscopeError, match="3 input tensors for a network that takes 2"):
        list(batches_of(_Two(), [((torch.rand(5, 3),) * 3, torch.arange(5))]))


def test_images_of_a_list_are_the_samples():
    pictures = [torch.rand(3, 8, 8 + number) for number in range(4)]
    (batch,) = batches_of(nn.Identity(), [(pictures, torch.arange(4))])
    assert batch.num_samples == 4
    assert [tuple(image.shape) for image in batch.first(2).args[0]] == [(3, 8, 8), (3, 8, 9)]
    assert batch.first(2).num_samples == 2

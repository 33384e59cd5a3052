"""Masks that a layer refuses, in one line and without moving anything."""

import copy

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.layers.batch import BatchNorm2d
from convscope.norm.layers.ghost import GhostBatchNorm2d
from convscope.norm.layers.layer import LayerNorm
from convscope.norm.layers.renorm import BatchRenorm2d
from norm.layers.masked import (
    CASES,
    built,
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_of_nothing_is_refused_with_the_layer_s_path(name, training):
    case = CASES[name]
    layer = built(case).train(training)
    before = copy.deepcopy(layer.state_dict())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def forward(self, x, mask):
            return self.inner(x, mask)

    mask = torch.zeros(case.shape[0], 1, *case.shape[2:], dtype=torch.bool)
    with pytest.raises(ConvscopeError, match="at 'inner' given a mask that is False everywhere") as caught:
        Net()(torch.randn(case.shape, dtype=torch.float64), mask)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (torch.ones(5, 3, 6), ["torch.float32", "boolean", "mask > 0"]),
        (torch.ones(5, 3, 6, dtype=torch.int64), ["torch.int64"]),
        (torch.ones(5, 3, 5, dtype=torch.bool), ["(5, 3, 5)", "(5, 4, 3, 6)", "expected shape (5, 3, 6)"]),
        (torch.ones(4, 3, 6, dtype=torch.bool), ["(4, 3, 6)"]),
        (torch.ones(5, 2, 3, 6, dtype=torch.bool), ["(5, 2, 3, 6)"]),
        (torch.ones(3, 6, dtype=torch.bool), ["(3, 6)"]),
        (torch.ones((), dtype=torch.bool), ["mask of shape ()"]),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, parts):
    layer = BatchNorm2d(4)
    with pytest.raises(ConvscopeError) as caught:
        layer(torch.randn(5, 4, 3, 6), mask)
    assert all(part in str(caught.value) for part in parts)
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("layer", "alone"),
    [(BatchNorm2d(2), 1), (GhostBatchNorm2d(2, ghost_batch_size=2), 0), (BatchRenorm2d(2), 1)],
)
def test_too_few_values_are_refused_and_move_nothing(layer, alone):
    """One value of a channel; for ghost batch norm a ghost batch that is all padding."""
    mask = torch.ones(4, 2, 2, 2, dtype=torch.bool)
    if alone:
        mask[:, 1] = False
        mask[0, 1, 0, 0] = True
    else:
        mask[2:] = False
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ConvscopeError, match=f"leave {alone} of the values of a channel"):
        layer(torch.randn(4, 2, 2, 2), mask)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_layer_norm_takes_no_mask_without_channels():
    """(N, L) for (N, L, D) would be read as (N, 1, D) where L == D: it is refused."""
    with pytest.raises(ConvscopeError, match="mask of shape"):
        LayerNorm(5)(torch.randn(2, 5, 5), torch.ones(2, 5, dtype=torch.bool))


def test_an_empty_batch_has_an_empty_mask():
    layer = BatchNorm2d(4)
    y = layer(torch.empty(0, 4, 3, 6), torch.empty(0, 3, 6, dtype=torch.bool))
    assert y.shape == (0, 4, 3, 6)
    assert layer.num_batches_tracked.item() == 0

"""A step against autograd on the whole batch, in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convscope.train.config import TrainConfig
from convscope.train.learning.learner import Learner
from convscope.train.running.step import take_step


def _net():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)).double()


def _learner(model, **settings):
    return Learner(model, model, TrainConfig(**settings), torch.device("cpu"))


@pytest.mark.parametrize("accumulation", [1, 2, 3, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_micro_batches_have_the_gradient_of_the_whole_batchs_mean_loss(accumulation, smoothing, clip):
    model = _net()
    whole = copy.deepcopy(model)
    pixels, labels = torch.randn(11, 2, 6, 5, dtype=torch.float64), torch.randint(3, (11,))
    learner = _learner(
        model, accumulation=accumulation, label_smoothing=smoothing, optimizer="sgd", learning_rate=1.0,
        weight_decay=0.0, clip_grad_norm=clip,
    )  # fmt: skip
    loss, right = take_step(learner, (pixels, labels), 11, 1, 1).tolist()
    scores = whole(pixels)
    expected = F.cross_entropy(scores, labels, label_smoothing=smoothing)
    gradients = torch.autograd.grad(expected, list(whole.parameters()))
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    factor = 1.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert right == (scores.argmax(1) == labels).sum()
    for ours, before, gradient in zip(model.parameters(), whole.parameters(), gradients):
        torch.testing.assert_close(ours, before - factor * gradient, rtol=0, atol=1e-12)


def test_shares_of_processes_weigh_their_losses_by_their_images():
    """Two shares of 4 and 3: their gradients' mean, as DDP takes it, is that of the batch of 7."""
    pixels, labels = torch.randn(7, 2, 6, 5, dtype=torch.float64), torch.randint(3, (7,))
    model = _net()
    starts = [parameter.detach().clone() for parameter in model.parameters()]
    sums = [torch.zeros_like(start) for start in starts]
    for part in (slice(0, 4), slice(4, 7)):
        own = copy.deepcopy(model)
        learner = _learner(own, optimizer="sgd", learning_rate=1.0, weight_decay=0.0, accumulation=3)
        take_step(learner, (pixels[part], labels[part]), 7, 2, 1)
        for total, start, parameter in zip(sums, starts, own.parameters()):
            total += (start - parameter.detach()) / 2
    gradients = torch.autograd.grad(F.cross_entropy(model(pixels), labels), list(model.parameters()))
    for total, gradient in zip(sums, gradients):
        torch.testing.assert_close(total, gradient, rtol=0, atol=1e-12)


def test_float16_steps_clip_unscaled_gradients_and_come_near_those_of_float32():
    pixels, labels = torch.randn(8, 2, 6, 5), torch.randint(3, (8,))
    half, single = _net().float(), None
    single = copy.deepcopy(half)
    for model, precision in ((half, "amp-fp16"), (single, "fp32")):
        learner = _learner(
            model, precision=precision, optimizer="sgd", learning_rate=1.0, clip_grad_norm=0.1,
            accumulation=2, weight_decay=0.0, ema_decay=0.5,
        )  # fmt: skip
        before = [parameter.detach().clone() for parameter in model.parameters()]
        take_step(learner, (pixels, labels), 8, 1, 1)
        moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before)])
        assert float(moved.detach().norm()) == pytest.approx(0.1, rel=1e-3)
    for ours, theirs in zip(half.parameters(), single.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)

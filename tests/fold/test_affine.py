"""Statistics and dtypes: dead channels, senseless variances, half precision."""

import pytest
import torch
from torch import nn

from convscope.fold import fold
from fold.nets import IMAGE, conv, fold_in_float64


def test_batch_norm_in_training_mode_stays(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4), conv(4, 4), nn.BatchNorm2d(4)))
    net[1].train()
    folded = fold(net, IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["kept", "folded"]
    assert "in training mode" in folded.ledger.entries[0].reason
    assert folded.model[1].training
    assert not folded.model[3].training


def test_dead_channels_and_zero_variances_fold(randomised, relative_error):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    with torch.no_grad():
        net[1].weight[1] = 0
        net[1].running_var[2] = 0
    folded = fold(net, IMAGE)
    assert folded.ledger.entries[0].magnification == pytest.approx(
        net[1].weight[2].abs().item() / 1e-5**0.5, rel=1e-4
    )
    assert fold_in_float64(net, IMAGE, relative_error) < 1e-12
    assert not folded.model[0].weight[1].any()


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-1.0, "goes down to -1"), (float("nan"), "aren't finite"), (float("inf"), "aren't finite")],
)
def test_senseless_variances_stay(value, reason, randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    net[1].running_var[1] = value
    assert reason in fold(net, IMAGE).ledger.entries[0].reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float64_and_cast_once(dtype, randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4))).to(dtype)
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert folded.model[0].weight.dtype == folded.model[0].bias.dtype == dtype
    scale = net[1].weight.double() / (net[1].running_var.double() + net[1].eps).sqrt()
    assert torch.equal(folded.model[0].weight, (net[0].weight.double() * scale.view(-1, 1, 1, 1)).to(dtype))
    assert [error.dtype for error in folded.proof.errors] == ["float64", str(dtype).removeprefix("torch.")]
    assert 1e-6 < folded.proof.errors[1].max_error < 0.1


def test_convolution_in_half_precision_under_a_float32_batch_norm(randomised):
    net = randomised(nn.Sequential(conv().bfloat16(), nn.BatchNorm2d(4)))
    folded = fold(net, torch.randn(IMAGE).bfloat16())
    assert folded.ledger.folded == 1
    assert folded.model[0].weight.dtype == torch.bfloat16


def test_weights_that_overflow_stay(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4))).half()
    with torch.no_grad():
        net[1].weight.fill_(60000)
        net[1].running_var.fill_(1e-4)
    assert "don't fit into float16" in fold(net, IMAGE).ledger.entries[0].reason

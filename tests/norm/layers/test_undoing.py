"""Why the statistics must be part of the gradient: without them, optimisation undoes the normalisation.

Ioffe & Szegedy, section 2: a layer adds a bias b and the mean is subtracted after it. If the gradient ignores
that the mean depends on b, every step moves b, the subtraction takes the move out again, the output and the
loss stay what they were, and b grows without bound.
"""

import pytest
import torch
from torch import nn

from convscope.norm import BatchNorm1d

STEPS, RATE = 100, 0.2


class CutNorm(nn.Module):
    """Batch norm whose mean and variance are constants to the gradient."""

    def forward(self, x):
        mean = x.detach().mean(0)
        return (x - mean) / (x.detach().var(0, correction=0) + 1e-5).sqrt()


def optimise(norm, parameter_names):
    """Train a linear layer before a normalisation towards outputs with mean 1; return what happened."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(64, 3, generator=generator, dtype=torch.float64) + 1
    linear = nn.Linear(4, 3).double()
    parameters = [getattr(linear, name) for name in parameter_names]
    start = [parameter.detach().clone() for parameter in parameters]
    losses, moves = [], []
    for _ in range(STEPS):
        loss = (norm(linear(u)) - target).square().sum(1).mean()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter -= RATE * gradient
        losses.append(loss.item())
        moves.append(max((p - s).norm().item() for p, s in zip(parameters, start)))
    return losses, moves, linear


def test_with_the_statistics_cut_the_bias_runs_away_and_nothing_is_gained():
    losses, moves, linear = optimise(CutNorm(), ["bias"])
    assert max(losses) - min(losses) < 1e-9
    # The gradient is the same at every step, so the bias grows in proportion to their number.
    assert moves[-1] == pytest.approx(STEPS * moves[0], rel=1e-6)
    assert linear.bias.abs().max() > 10


def test_with_the_statistics_in_the_gradient_the_bias_stays():
    losses, moves, _ = optimise(BatchNorm1d(3, affine=False).double(), ["bias"])
    assert max(losses) - min(losses) < 1e-9
    assert moves[-1] < 1e-12


def test_with_the_statistics_in_the_gradient_the_weights_keep_their_scale():
    """The gradient is orthogonal to scale-invariant weights, so that steps turn them: d‖w‖²/dt = 0.

    Cut, the gradient points along them: it tries to scale outputs whose scale the layer takes out again.
    """
    radial = {}
    for name, norm in (("cut", CutNorm()), ("whole", BatchNorm1d(3, affine=False, eps=0.0).double())):
        u = torch.randn(64, 4, dtype=torch.float64)
        target = 5 * u[:, :3]
        linear = nn.Linear(4, 3, bias=False).double()
        with torch.no_grad():
            linear.weight.copy_(torch.eye(3, 4))
        loss = (norm(linear(u)) - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, linear.weight)
        cosine = (gradient * linear.weight).sum(1) / linear.weight.norm(dim=1)
        radial[name] = cosine.abs().max().item()
    assert radial["whole"] < 1e-12
    assert radial["cut"] > 0.1


def test_with_the_statistics_in_the_gradient_training_gets_somewhere():
    whole, _, _ = optimise(BatchNorm1d(3).double(), ["weight"])
    assert whole[-1] < whole[0] - 0.01
    # gamma and beta, not the layer before, are where a mean of 1 can be learnt.
    norm = BatchNorm1d(3).double()
    with torch.no_grad():
        norm.bias.fill_(1)
    shifted, _, _ = optimise(norm, ["weight"])
    assert shifted[-1] < whole[-1] - 2.5  # three outputs, each (1 - 0)² closer

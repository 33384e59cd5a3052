"""How tests of ``docs/normalisation.md`` quote its formulas, and a random set to evaluate them on."""

from types import SimpleNamespace

import torch

import convscope as cs

QUOTED = {}
M = 24


def formula(number, text):
    """Register a formula that the test below it evaluates."""

    def quoting(test):
        QUOTED[number] = " ".join(text.split())
        return test

    return quoting


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-10, atol=1e-12)


def four_steps():
    """The four steps on a random set, every value of them kept with its gradient by autograd."""
    torch.manual_seed(1)
    x = (3 * torch.randn(M, dtype=torch.float64) + 2).requires_grad_()
    gamma, beta = (torch.randn((), dtype=torch.float64).requires_grad_() for _ in "gb")
    eps = 0.1  # large, so that no term hides
    mu = x.sum() / M
    variance = sum((x_i - mu) ** 2 for x_i in x) / M
    r = 1 / torch.sqrt(variance + eps)
    xhat = r * (x - mu)
    y = gamma * xhat + beta
    for value in (mu, variance, r, xhat):
        value.retain_grad()
    dy = torch.randn(M, dtype=torch.float64)
    y.backward(dy)
    grads = {
        "dx": x.grad, "dmu": mu.grad, "dvariance": variance.grad, "dr": r.grad, "dxhat": xhat.grad,
        "dgamma": gamma.grad, "dbeta": beta.grad,
    }  # fmt: skip
    values = {
        "x": x,
        "mu": mu,
        "variance": variance,
        "r": r,
        "xhat": xhat,
        "y": y,
        "gamma": gamma,
        "beta": beta,
    }
    return SimpleNamespace(
        **{name: value.detach() for name, value in {**values, **grads}.items()}, dy=dy, eps=eps
    )


def batch_norm(at, kind=cs.norm.BatchNorm1d):
    layer = kind(1, eps=at.eps, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(at.gamma)
        layer.bias.fill_(at.beta)
    return layer

"""Formulas 1 to 19 of ``docs/normalisation.md``, the way back step by step, in float64 against autograd.

Unless said otherwise they are about one set of values x_1 … x_m (``at.x``), which all tests share.
"""

import pytest
import torch
from torch import nn

import convscope as cs
from docs.quoted import M, batch_norm, close, formula, four_steps


@pytest.fixture(scope="module")
def at():
    return four_steps()


@formula(1, r"\mu = \frac{1}{m} \sum_i x_i")
@formula(2, r"\sigma^2 = \frac{1}{m} \sum_i (x_i - \mu)^2")
@formula(3, r"\hat{x}_i = r\,(x_i - \mu), \qquad r = \frac{1}{\sqrt{\sigma^2 + \varepsilon}}")
@formula(4, r"y_i = \gamma\,\hat{x}_i + \beta")
def test_the_four_steps_are_what_the_layer_computes(at):
    mu = sum(at.x.tolist()) / M
    variance = sum((x_i - mu) ** 2 for x_i in at.x.tolist()) / M
    r = (variance + at.eps) ** -0.5
    y = [at.gamma.item() * (r * (x_i - mu)) + at.beta.item() for x_i in at.x.tolist()]
    close(batch_norm(at)(at.x[:, None]).flatten(), torch.tensor(y, dtype=torch.float64))


@formula(
    5,
    r"d\hat{x}_i = \gamma\,dy_i, \qquad d\gamma = \sum_i dy_i\,\hat{x}_i, \qquad d\beta = \sum_i dy_i",
)
def test_through_step_4(at):
    close(at.gamma * at.dy, at.dxhat)
    close((at.dy * at.xhat).sum(), at.dgamma)
    close(at.dy.sum(), at.dbeta)


@formula(
    6,
    r"""d'x_i = r\,d\hat{x}_i, \qquad d'\mu = -r \sum_i d\hat{x}_i, \qquad
    dr = \sum_i d\hat{x}_i\,(x_i - \mu)""",
)
@formula(7, r"d\sigma^2 = -\tfrac{1}{2}\,r^3 \sum_i d\hat{x}_i\,(x_i - \mu)")
def test_through_step_3(at):
    x, mu, r = (value.clone().requires_grad_() for value in (at.x, at.mu, at.r))  # cut from one another
    (r * (x - mu)).backward(at.dxhat)
    close(at.r * at.dxhat, x.grad)
    close(-at.r * at.dxhat.sum(), mu.grad)
    close((at.dxhat * (at.x - at.mu)).sum(), r.grad)
    close((at.dxhat * (at.x - at.mu)).sum(), at.dr)
    close(-(at.r**3) / 2 * (at.dxhat * (at.x - at.mu)).sum(), at.dvariance)


@formula(
    8,
    r"""\frac{\partial \sigma^2}{\partial x_i} = \frac{2}{m}\,(x_i - \mu), \qquad
    \frac{\partial \sigma^2}{\partial \mu} = -\frac{2}{m} \sum_i (x_i - \mu) = 0""",
)
def test_through_step_2(at):
    x, mu = at.x.clone().requires_grad_(), at.mu.clone().requires_grad_()  # μ held fixed
    ((x - mu) ** 2).mean().backward()
    close(2 / M * (at.x - at.mu), x.grad)
    close(-2 / M * (at.x - at.mu).sum(), mu.grad)
    close(mu.grad, 0.0 * mu.grad)


@formula(9, r"d\mu = -r \sum_i d\hat{x}_i")
@formula(10, r"dx_i = r\,d\hat{x}_i + \frac{2}{m}\,(x_i - \mu)\,d\sigma^2 + \frac{1}{m}\,d\mu")
def test_through_step_1(at):
    close(-at.r * at.dxhat.sum(), at.dmu)
    close(at.r * at.dxhat + 2 / M * (at.x - at.mu) * at.dvariance + at.dmu / M, at.dx)


@formula(
    11,
    r"""dx_i = r \left( d\hat{x}_i - \frac{1}{m} \sum_j d\hat{x}_j
    - \hat{x}_i\,\frac{1}{m} \sum_j d\hat{x}_j\,\hat{x}_j \right)""",
)
@formula(
    12,
    r"""\begin{gathered}
    S_1 = \sum_i dy_i = d\beta, \qquad S_2 = \sum_i dy_i\,\hat{x}_i = d\gamma \\
    dx_i = \gamma\,r \left( dy_i - \frac{S_1}{m} - \hat{x}_i\,\frac{S_2}{m} \right)
    \end{gathered}""",
)
def test_gathered_and_minimal(at):
    close(at.r * (at.dxhat - at.dxhat.mean() - at.xhat * (at.dxhat * at.xhat).mean()), at.dx)
    S1, S2 = at.dy.sum(), (at.dy * at.xhat).sum()
    close(S1, at.dbeta)
    close(S2, at.dgamma)
    close(at.gamma * at.r * (at.dy - S1 / M - at.xhat * S2 / M), at.dx)


@formula(
    13,
    r"""dx_i = A\,dy_i + B\,(x_i - \mu) + D, \qquad A = \gamma\,r, \qquad
    B = -\gamma\,r^2\,\frac{S_2}{m}, \qquad D = -\gamma\,r\,\frac{S_1}{m}""",
)
@formula(14, r"dx_i = A\,dy_i + B\,x_i + (D - B\,\mu)")
@formula(
    15,
    r"""S_2 = r \left( \sum_i dy_i\,(x_i - K) - \eta\,S_1 \right), \qquad
    dx_i = A\,dy_i + B\,(x_i - K) + (D - B\,\eta)""",
)
def test_by_constants_of_the_set(at):
    S1, S2 = at.dy.sum(), (at.dy * at.xhat).sum()
    A, B, D = at.gamma * at.r, -at.gamma * at.r**2 * S2 / M, -at.gamma * at.r * S1 / M
    close(A * at.dy + B * (at.x - at.mu) + D, at.dx)
    close(A * at.dy + B * at.x + (D - B * at.mu), at.dx)
    for K in (at.mu + 0.3, at.x[0]):
        eta = at.mu - K
        close(at.r * ((at.dy * (at.x - K)).sum() - eta * S1), S2)
        close(A * at.dy + B * (at.x - K) + (D - B * eta), at.dx)


def test_in_float32_the_forms_lose_what_the_page_says():
    torch.manual_seed(0)
    m, kappa = 65536, 1e4
    deviation = torch.randn(m)
    x, dy = deviation + kappa, torch.randn(m) + 0.5 * deviation + 0.3
    x_, dy_ = x.double(), dy.double()
    mu = x_.mean()
    r = ((x_ - mu).square().mean() + 1e-5).rsqrt()
    S1, S2 = dy_.sum(), (dy_ * (x_ - mu) * r).sum()
    A, B, D = r, -(r**2) * S2 / m, -r * S1 / m
    K = mu.float()

    def error(slope_of, constant):
        found = A.float() * dy + B.float() * slope_of + constant.float()
        true = A * dy_ + B * (x_ - mu) + D
        return float((found - true).abs().max() / true.abs().max())

    assert 3e-5 < error(x, D - B * mu) < 1e-3  # (14): 1e-4
    assert 3e-6 < error(x - K, D) < 1e-4  # (13) with μ in one number: 1e-5
    assert error(x - K, D - B * (mu - K)) < 3e-7  # (15): 1e-7


@formula(16, r"\sum_i dx_i = 0, \qquad \sum_i dx_i\,\hat{x}_i = \gamma\,\varepsilon\,r^3\,S_2")
def test_self_checks(at):
    S2 = (at.dy * at.xhat).sum()
    close(at.dx.sum(), 0.0 * S2)
    close(at.xhat.sum(), 0.0 * S2)
    close((at.xhat**2).sum(), M * (1 - at.eps * at.r**2))
    close((at.dx * at.xhat).sum(), at.gamma * at.eps * at.r**3 * S2)
    layer, x = batch_norm(at), at.x[:, None].clone().requires_grad_()
    layer(x).backward(at.dy[:, None])
    close(x.grad.sum(), 0.0 * S2)
    close((x.grad.flatten() * at.xhat).sum(), at.gamma * at.eps * at.r**3 * S2)


@formula(17, r"\mathrm{BN}(x + b) = \mathrm{BN}(x), \qquad db = \sum_i dx_i = 0")
def test_a_bias_before_is_redundant(at):
    layer, x = batch_norm(at), at.x[:, None]
    b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    close(layer(x + b), layer(x))
    layer(x + b).backward(at.dy[:, None])
    close(b.grad, torch.zeros_like(b))


@formula(
    18,
    r"""\mathrm{BN}_{a^2 \varepsilon}(a\,x) = \mathrm{BN}_{\varepsilon}(x), \qquad
    \sum_i dx_i\,x_i = \gamma\,\varepsilon\,r^2\,S_2 \approx 0""",
)
def test_the_scale_before_does_not_matter(at):
    layer, wider = batch_norm(at), batch_norm(at)
    wider.eps = 2.5**2 * at.eps
    close(wider(2.5 * at.x[:, None]), layer(at.x[:, None]))
    close((at.dx * at.x).sum(), at.gamma * at.eps * at.r**2 * (at.dy * at.xhat).sum())


@formula(
    19,
    r"""\begin{gathered}
    u_i = \gamma_{c(i)}\,dy_i, \qquad d\gamma_c = \sum_{i:\,c(i) = c} dy_i\,\hat{x}_i \\
    dx_i = r \left( u_i - \frac{1}{m} \sum_j u_j - \hat{x}_i\,\frac{1}{m} \sum_j u_j\,\hat{x}_j \right)
    \end{gathered}""",
)
@pytest.mark.parametrize(
    ("layer", "sets"),
    [
        (cs.norm.GroupNorm(2, 6), [(n, slice(3 * g, 3 * g + 3)) for n in range(2) for g in range(2)]),
        (cs.norm.InstanceNorm1d(6, affine=True), [(n, slice(c, c + 1)) for n in range(2) for c in range(6)]),
        (cs.norm.GroupNorm(1, 6), [(n, slice(None)) for n in range(2)]),
        (cs.norm.BatchNorm1d(6), [(slice(None), slice(c, c + 1)) for c in range(6)]),
    ],
    ids=["group", "instance", "layer of maps", "batch"],
)
def test_any_member_set_by_set(layer, sets):
    layer = layer.double()
    nn.init.normal_(layer.weight)
    x = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    layer.zero_grad()
    layer(x).backward(dy)
    dgamma = torch.zeros(6, dtype=torch.float64)
    for a_set in sets:
        values = x.detach()[a_set]
        r = (values.var(correction=0) + layer.eps).rsqrt()
        xhat = r * (values - values.mean())
        u = (layer.weight.detach()[:, None] * dy)[a_set]
        close(x.grad[a_set], r * (u - u.mean() - xhat * (u * xhat).mean()))
        products = torch.zeros_like(dy)
        products[a_set] = dy[a_set] * xhat
        dgamma += products.sum((0, 2))
    close(layer.weight.grad, dgamma)

"""``docs/normalisation.md``: formulas from 20 on, in float64; every example runs; every formula is tested.

A test of a formula quotes it. The last tests check that what is quoted is what the page says, all of it.
"""

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.norm.layers.ghost import GhostBatchNorm1d
from convscope.norm.layers.renorm import BatchRenorm1d
from docs import test_backward  # noqa: F401  (it quotes the formulas before 20)
from docs.quoted import QUOTED, M, batch_norm, close, formula, four_steps

PAGE = (Path(__file__).parents[2] / "docs" / "normalisation.md").read_text()


@pytest.fixture(scope="module")
def at():
    return four_steps()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@formula(
    20,
    r"""\begin{gathered}
    y_i = \gamma\,(\rho\,\hat{x}_i + \delta) + \beta \\
    \rho = \mathrm{clip}\left(
    \frac{\sigma}{\sigma_\mathrm{run}},\ \frac{1}{\rho_\mathrm{max}},\ \rho_\mathrm{max} \right), \qquad
    \delta = \mathrm{clip}\left(
    \frac{\mu - \mu_\mathrm{run}}{\sigma_\mathrm{run}},\ -\delta_\mathrm{max},\ \delta_\mathrm{max} \right)
    \end{gathered}""",
)
@formula(
    21,
    r"""dx_i = \gamma\,\rho\,r \left( dy_i - \frac{S_1}{m} - \hat{x}_i\,\frac{S_2}{m} \right), \qquad
    d\gamma = \sum_i dy_i\,(\rho\,\hat{x}_i + \delta), \qquad d\beta = S_1""",
)
@pytest.mark.parametrize(("rho_max", "delta_max"), [(1.2, 0.1), (100.0, 100.0)])
def test_batch_renorm(at, rho_max, delta_max):
    mu_run, v_run = 1.0, 4.0
    sigma, sigma_run = 1 / at.r, (v_run + at.eps) ** 0.5
    rho = (sigma / sigma_run).clip(1 / rho_max, rho_max)
    delta = ((at.mu - mu_run) / sigma_run).clip(-delta_max, delta_max)
    x, gamma, beta = (value.clone().requires_grad_() for value in (at.x, at.gamma, at.beta))
    r = (x.var(correction=0) + at.eps).rsqrt()
    y = gamma * (rho * r * (x - x.mean()) + delta) + beta
    if rho_max == 100:  # unclipped: what test time will compute
        close(y, gamma * (x - mu_run) / sigma_run + beta)
    y.backward(at.dy)
    S1, S2 = at.dy.sum(), (at.dy * at.xhat).sum()
    close(at.gamma * rho * at.r * (at.dy - S1 / M - at.xhat * S2 / M), x.grad)
    close((at.dy * (rho * at.xhat + delta)).sum(), gamma.grad)
    close(S1, beta.grad)
    layer, given = batch_norm(at, BatchRenorm1d), at.x[:, None].clone().requires_grad_()
    layer.r_max, layer.d_max, layer.relaxation = rho_max, delta_max, None
    layer.running_mean.fill_(mu_run)
    layer.running_var.fill_(v_run)
    out = layer(given)
    out.backward(at.dy[:, None])
    close(out.flatten(), y)
    close(given.grad.flatten(), x.grad)
    close(layer.weight.grad[0], gamma.grad)
    close(layer.bias.grad[0], beta.grad)


def test_batch_renorm_opens_when_the_page_says():
    layer = BatchRenorm1d(1, r_max=3.0, d_max=5.0)
    for batches, is_open in ((5_000, False), (5_001, True)):
        layer.num_batches_tracked.fill_(batches)
        r_max, d_max = layer.relaxation.bounds(layer.r_max, layer.d_max, layer.num_batches_tracked)
        assert (r_max > 1, d_max > 0) == (is_open, is_open)


def test_ghost_batch_norm_is_batch_norm_of_parts(at):
    layer, part_by_part = batch_norm(at, GhostBatchNorm1d), batch_norm(at)
    layer.ghost_batch_size = 9
    x, x_ = (at.x[:, None].clone().requires_grad_() for _ in "ab")
    out, expected = layer(x), torch.cat([part_by_part(part) for part in x_.split(9)])
    close(out, expected)
    out.backward(at.dy[:, None])
    expected.backward(at.dy[:, None])
    close(x.grad, x_.grad)
    close(layer.running_mean, part_by_part.running_mean)
    close(layer.running_var, part_by_part.running_var)


@formula(
    22,
    r"""m = \sum_k m_k, \qquad \mu = \frac{1}{m} \sum_k m_k\,\mu_k, \qquad
    \sigma^2 = \frac{1}{m} \left( \sum_k Q_k + \sum_k m_k\,(\mu_k - \mu)^2 \right)""",
)
@formula(
    23,
    r"""\frac{S_1}{m} = \frac{\sum_k S_1^{(k)}}{\sum_k m_k} \ \neq\
    \frac{1}{K} \sum_{k=1}^{K} \frac{S_1^{(k)}}{m_k}, \qquad
    \frac{S_2}{m} = \frac{\sum_k S_2^{(k)}}{\sum_k m_k}""",
)
def test_over_processes(at):
    parts = [slice(0, 3), slice(3, 4), slice(4, M)]
    counts = [3, 1, M - 4]
    means = [at.x[part].mean() for part in parts]
    squares = [((at.x[part] - mean) ** 2).sum() for part, mean in zip(parts, means)]
    mu = sum(m_k * mu_k for m_k, mu_k in zip(counts, means)) / sum(counts)
    between = sum(m_k * (mu_k - mu) ** 2 for m_k, mu_k in zip(counts, means))
    close(mu, at.mu)
    close((sum(squares) + between) / sum(counts), at.variance)
    S1 = [at.dy[part].sum() for part in parts]
    S2 = [(at.dy * at.xhat)[part].sum() for part in parts]
    S1_m, S2_m = sum(S1) / sum(counts), sum(S2) / sum(counts)
    close(at.gamma * at.r * (at.dy - S1_m - at.xhat * S2_m), at.dx)
    averaged = sum(S1_k / m_k for S1_k, m_k in zip(S1, counts)) / len(parts)
    assert abs(averaged - S1_m) > 0.1 * abs(S1_m)


@formula(
    24,
    r"""\begin{gathered}
    m = \sum_i w_i, \qquad \mu = \frac{1}{m} \sum_i w_i\,x_i, \qquad
    \sigma^2 = \frac{1}{m} \sum_i w_i\,(x_i - \mu)^2 \\
    dx_i = w_i\,\gamma\,r \left( dy_i - \frac{1}{m} \sum_j w_j\,dy_j
    - \hat{x}_i\,\frac{1}{m} \sum_j w_j\,dy_j\,\hat{x}_j \right)
    \end{gathered}""",
)
def test_masked(at):
    w = (torch.arange(M) % 3 > 0).double()
    kept = at.x[w > 0].clone().requires_grad_()
    y = at.gamma * (kept - kept.mean()) * (kept.var(correction=0) + at.eps).rsqrt() + at.beta
    y.backward(at.dy[w > 0])
    m = w.sum()
    mu = (w * at.x).sum() / m
    variance = (w * (at.x - mu) ** 2).sum() / m
    r = (variance + at.eps).rsqrt()
    xhat = r * (at.x - mu)
    terms = at.dy - (w * at.dy).sum() / m - xhat * (w * at.dy * xhat).sum() / m
    dx = w * at.gamma * r * terms
    close(dx[w > 0], kept.grad)
    assert (dx[w == 0] == 0).all()
    layer, padded = batch_norm(at), at.x[:, None].clone().requires_grad_()
    out = layer(padded, (w > 0)[:, None])
    out.backward(at.dy[:, None])
    close(out[w > 0].flatten(), y)
    assert (out[w == 0] == 0).all()
    close(padded.grad.flatten(), dx)


@formula(
    25,
    r"""\mu_\mathrm{run} \leftarrow (1 - \alpha)\,\mu_\mathrm{run} + \alpha\,\mu, \qquad
    v_\mathrm{run} \leftarrow (1 - \alpha)\,v_\mathrm{run} + \alpha\,\frac{m}{m - 1}\,\sigma^2""",
)
@pytest.mark.parametrize("kind", [cs.norm.BatchNorm1d, nn.BatchNorm1d])
def test_running_averages(at, kind):
    layer = batch_norm(at, kind)
    mu_run, v_run = torch.zeros(1).double(), torch.ones(1).double()
    for scale in (1.0, 3.0):
        layer(scale * at.x[:, None])
        mu_run = 0.9 * mu_run + 0.1 * scale * at.mu
        v_run = 0.9 * v_run + 0.1 * M / (M - 1) * scale**2 * at.variance
    close(layer.running_mean, mu_run)
    close(layer.running_var, v_run)


@formula(
    26,
    r"""\left( 1 - \alpha \right)^n < 1\,\% \ \text{ for } \ n \geq 44,\ 459,\ 4603 \ \text{ at }
    \ \alpha = 0.1,\ 0.01,\ 0.001""",
)
@formula(
    27,
    r"""\frac{\left( \sum_t w_t \right)^2}{\sum_t w_t^2} = \frac{2 - \alpha}{\alpha} = 19,\ 199,\ 1999,
    \qquad w_t = \alpha\,(1 - \alpha)^t""",
)
def test_age_of_running_averages():
    for alpha, batches, effective in ((0.1, 44, 19), (0.01, 459, 199), (0.001, 4603, 1999)):
        assert (1 - alpha) ** batches < 0.01 <= (1 - alpha) ** (batches - 1)
        weights = [alpha * (1 - alpha) ** t for t in range(40_000)]
        close(sum(weights) ** 2 / sum(w**2 for w in weights), float(effective))
        close((2 - alpha) / alpha, float(effective))
    assert round(100 * 0.999**1000) == 37


@formula(
    28,
    r"""\alpha_n = \frac{1}{n} \ \text{(cumulative)}, \qquad
    \alpha_n = \max\left( \alpha,\ \frac{1}{n} \right) \ \text{(warm start)} \qquad
    \text{at the } n\text{-th batch}""",
)
def test_cumulative_and_warm():
    values = torch.randn(30, dtype=torch.float64)
    cumulative = cs.norm.BatchNorm1d(1, momentum=None, dtype=torch.float64)
    warm = cs.norm.BatchNorm1d(1, warm_start=True, dtype=torch.float64)
    average, alpha = torch.tensor(123.0).double(), 0.1
    for n, value in enumerate(values, 1):
        for layer in (cumulative, warm):
            layer(torch.stack([value - 1, value + 1])[:, None])
        average = average + max(alpha, 1 / n) * (value - average)
        close(cumulative.running_mean[0], values[:n].mean())
        close(warm.running_mean[0], average)
        if n <= 10:
            close(average, values[:n].mean())
    weights = torch.tensor([0.1 * 0.9**t for t in range(20)], dtype=torch.float64).flip(0)
    close(average, 0.9**20 * values[:10].mean() + (weights * values[10:]).sum())


@formula(29, r"\alpha' = 1 - (1 - \alpha)^{1/k}, \qquad (1 - \alpha')^k = 1 - \alpha")
def test_several_updates_a_step(at):
    once = batch_norm(at)
    once(at.x[:, None])
    often = batch_norm(at)
    often.momentum = 1 - (1 - once.momentum) ** (1 / 4)
    close((1 - often.momentum) ** 4, 1 - once.momentum)
    for _ in range(4):
        often(at.x[:, None])
    close(often.running_mean, once.running_mean)
    close(often.running_var, once.running_var)


@formula(
    30,
    r"""y_i = a\,x_i + b, \qquad a = \frac{\gamma}{\sqrt{v_\mathrm{run} + \varepsilon}}, \qquad
    b = \beta - a\,\mu_\mathrm{run}, \qquad dx_i = a\,dy_i""",
)
def test_test_time(at):
    layer, x = batch_norm(at), at.x[:, None].clone().requires_grad_()
    layer(x)
    layer.eval()
    a = at.gamma / (layer.running_var + at.eps).sqrt()
    y = layer(x)
    close(y, a * at.x[:, None] + (at.beta - a * layer.running_mean))
    y.backward(at.dy[:, None])
    close(x.grad, a * at.dy[:, None])


@formula(31, r"\sigma^2 = \frac{1}{m} \sum_i x_i^2 - \mu^2")
@formula(32, r"\frac{1}{m} \sum_i (x_i - K)^2 = \sigma^2 + (\mu - K)^2")
@formula(
    33,
    r"""\eta = \frac{1}{m} \sum_i (x_i - K), \qquad \mu = K + \eta, \qquad
    \sigma^2 = \frac{1}{m} \sum_i (x_i - K)^2 - \eta^2""",
)
def test_ways_to_the_variance(at):
    close((at.x**2).mean() - at.mu**2, at.variance)
    for K in (at.x[0], at.mu + 1e-3, -7.0):
        close(((at.x - K) ** 2).mean(), at.variance + (at.mu - K) ** 2)
        eta = (at.x - K).mean()
        close(K + eta, at.mu)
        close(((at.x - K) ** 2).mean() - eta**2, at.variance)


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="said of PyTorch 2.13")
def test_what_the_page_says_of_pytorch(one_thread):
    x = torch.randn(16, 2, 256, 256, generator=torch.Generator().manual_seed(0)) + 1000
    layer = nn.BatchNorm2d(2, momentum=1.0)
    layer(x.to(memory_format=torch.channels_last))
    assert round(layer.running_var[0].item()) == 93
    assert int(abs(layer.running_mean[0].item() - x[:, 0].double().mean().item())) == 9
    maps = (torch.randn(16, 8, 64, 64) + 1000).to(memory_format=torch.channels_last)
    assert nn.GroupNorm(2, 8)(maps).std() > 100
    assert abs(cs.norm.GroupNorm(2, 8)(maps).std() - 1) < 1e-3


def test_what_the_page_says_of_large_means():
    found = []
    for seed in range(20):
        values = torch.randn(65536, generator=torch.Generator().manual_seed(seed)) + 1e4
        found.append((values.square().mean() - values.mean().square()).item())
    assert all(variance % 8 == 0 for variance in found)
    assert min(found) < 0
    assert 0 in found
    assert 9e-4 < torch.nextafter(torch.tensor(1e4), torch.tensor(2e4)) - 1e4 < 1e-3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kappa", [0.0, 0.01, 1.0, 1e2, 1e4])
def test_the_stated_bounds(kappa, layout):
    x = (torch.randn(8, 3, 64, 64) + kappa).to(memory_format=layout).requires_grad_()
    dy = torch.randn_like(x)
    layer = cs.norm.BatchNorm2d(3, momentum=1.0)
    layer(x).backward(dy)
    x_ = x.detach().double().requires_grad_()
    mean, variance = x_.mean((0, 2, 3), keepdim=True), x_.var((0, 2, 3), keepdim=True)
    biased = (x_ - mean).square().mean((0, 2, 3), keepdim=True)
    ((x_ - mean) / (biased + layer.eps).sqrt()).backward(dy.double())
    missed = (layer.running_mean.double() - mean.flatten()).abs()
    ulp = torch.nextafter(mean.float(), torch.tensor(torch.inf)) - mean.float()
    assert (missed <= (2 * ulp.flatten() if kappa >= 1 else 1e-7 * variance.flatten().sqrt())).all()
    assert ((layer.running_var.double() / variance.flatten() - 1).abs() <= 1e-5).all()
    assert (x.grad - x_.grad).abs().max() <= 1e-6 * x_.grad.abs().max()


def test_every_formula_of_the_page_is_quoted_here():
    blocks = re.findall(r"```math\n(.*?) \\tag\{(\d+)\}\n```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```math")
    assert {int(number): " ".join(text.split()) for text, number in blocks} == QUOTED


def test_every_example_of_the_page_runs():
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(examples), {}, "normalisation.md", None, 0)
    assert len(test.examples) > 10
    told = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)  # tables end in spaces
    assert runner.run(test, out=told.append).failed == 0, "".join(told)


def test_inline_formulas_survive_markdown():
    # Markdown eats a backslash before punctuation there: \, and \{ would be lost.
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", text)
    assert len(inline) > 80
    assert text.count("$") == 2 * len(inline)
    assert not [formula for formula in inline if re.search(r"\\[^a-zA-Z]", formula)]

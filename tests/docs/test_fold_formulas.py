"""Formulas of ``docs/folding.md`` in float64: explicit loops against PyTorch's layers, and against folds."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convscope as cs
from docs.fold_quoted import close, formula, layer_by_loops, normal, positive


def column(numbers, axes=3):
    return numbers.view(1, -1, *(1,) * (axes - 2))


def batch_norm(num_channels, kind=nn.BatchNorm1d, signs=(1, -1)):
    """A batch norm with numbers as after training."""
    layer = kind(num_channels, eps=0.1, dtype=torch.float64).eval()
    with torch.no_grad():
        layer.running_mean.copy_(normal(num_channels, seed=1))
        layer.running_var.copy_(positive(num_channels, seed=2))
        layer.weight.copy_(positive(num_channels, seed=3) * torch.tensor(signs).repeat(9)[:num_channels])
        layer.bias.copy_(normal(num_channels, seed=4))
    return layer


def s_and_t(layer):
    s = layer.weight.detach() / torch.sqrt(layer.running_var + layer.eps)
    return s, layer.bias.detach() - s * layer.running_mean


def folded(*layers, shape):
    found = cs.fold(nn.Sequential(*copy.deepcopy(layers)).eval(), shape)
    assert found.ledger.folded == len(found.ledger)
    return found.model


@formula(
    2,
    r"""y = s\,x + t, \qquad s = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}}, \qquad t = \beta - s\,\mu""",
)
def test_batch_norm_at_test_time_is_a_scale_and_a_shift():
    layer, x = batch_norm(4), normal(2, 4, 5)
    s, t = s_and_t(layer)
    close(layer(x).detach(), column(s) * x + column(t))


@formula(1, r"v' = a\,v + b")
@formula(3, r"a_x = s\,a_y, \qquad b_x = a_y\,t + b_y")
def test_the_two_values_agree_for_these_gauges_and_no_others():
    layer, x = batch_norm(4), normal(2, 4, 5)
    s, t = s_and_t(layer)
    a_y, b_y = normal(4, seed=5), normal(4, seed=6)
    a_x, b_x = s * a_y, a_y * t + b_y
    y_gauged = column(a_y) * layer(x).detach() + column(b_y)
    close(column(a_x) * x + column(b_x), y_gauged)
    for a, b in ((a_x * 1.1, b_x), (a_x, b_x + 0.1), (-a_x, b_x)):
        assert ((column(a) * x + column(b) - y_gauged).abs().amax((0, 2)) > 1e-3).all()


@formula(
    5,
    r"""W'_{oik} = \frac{a_o\,W_{oik}}{a_i}, \qquad
    c'_o = a_o \left( c_o - \sum_{i,k} \frac{W_{oik}\,b_i}{a_i} \right) + b_o""",
)
def test_a_layer_takes_any_gauges():
    W, c, x = normal(3, 4, 2), normal(3), normal(2, 4, 6)
    (a_i, b_i), (a_o, b_o) = (normal(4, seed=7), normal(4, seed=8)), (normal(3, seed=9), normal(3, seed=10))
    W_new, c_new = torch.empty_like(W), torch.empty_like(c)
    for o in range(3):
        for i in range(4):
            W_new[o, i] = a_o[o] * W[o, i] / a_i[i]
        c_new[o] = a_o[o] * (c[o] - sum((W[o, i] * b_i[i] / a_i[i]).sum() for i in range(4))) + b_o[o]
    given = column(a_i) * x + column(b_i)
    wanted = column(a_o) * layer_by_loops(W, c, x) + column(b_o)
    close(layer_by_loops(W_new, c_new, given), wanted)
    close(F.conv1d(given, W_new, c_new), wanted)


@formula(
    6,
    r"""\mu' = a_x\,\mu + b_x, \qquad \gamma' = \frac{a_y\,\gamma}{a_x}, \qquad \beta' = a_y\,\beta + b_y""",
)
def test_a_batch_norm_that_stays_takes_any_gauges():
    layer, x = batch_norm(4), normal(2, 4, 5)
    a_x, b_x, a_y, b_y = (normal(4, seed=seed) for seed in (5, 6, 7, 8))
    wanted = column(a_y) * layer(x) + column(b_y)
    with torch.no_grad():
        layer.running_mean.copy_(a_x * layer.running_mean + b_x)
        layer.weight.copy_(a_y * layer.weight / a_x)
        layer.bias.copy_(a_y * layer.bias + b_y)
    close(layer(column(a_x) * x + column(b_x)), wanted)


@formula(7, r"W'_{oik} = s_o\,W_{oik}, \qquad c'_o = s_o\,c_o + t_o")
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_backward(groups):
    conv = nn.Conv1d(4, 4, 3, padding=2, stride=2, groups=groups, dtype=torch.float64)
    layer = batch_norm(4)
    s, t = s_and_t(layer)
    made = folded(conv, layer, shape=(2, 4, 9))[0]
    close(made.weight.detach(), torch.stack([s[o] * conv.weight.detach()[o] for o in range(4)]))
    close(made.bias.detach(), s * conv.bias.detach() + t)
    x = normal(2, 4, 9)
    close(made(x), layer(conv(x)))


@formula(
    8,
    r"""W'_{ijk} = s_{o(i,j)}\,W_{ijk}, \qquad o(i, j) = g(i)\,\frac{C_\mathrm{out}}{G} + j, \qquad
    g(i) = \left\lfloor \frac{i\,G}{C_\mathrm{in}} \right\rfloor""",
)
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups"), [(4, 4, 1), (4, 4, 2), (6, 4, 2), (4, 8, 4), (3, 3, 3)]
)
def test_backward_into_a_transposed_convolution(inputs, outputs, groups):
    conv = nn.ConvTranspose1d(inputs, outputs, 3, 2, groups=groups, dtype=torch.float64)
    layer = batch_norm(outputs)
    s, t = s_and_t(layer)
    W = conv.weight.detach().clone()
    for i in range(inputs):
        for j in range(outputs // groups):
            W[i, j] *= s[i * groups // inputs * (outputs // groups) + j]
    x = normal(2, inputs, 5)
    by_hand = F.conv_transpose1d(x, W, s * conv.bias.detach() + t, stride=2, groups=groups)
    close(by_hand, layer(conv(x)).detach())
    close(folded(conv, layer, shape=(2, inputs, 5))[0].weight.detach(), W)


@formula(14, r"W'_{oik} = s_i\,W_{oik}, \qquad c'_o = c_o + \sum_{i,k} W_{oik}\,t_i")
def test_forward():
    conv, layer = nn.Conv1d(4, 3, 2, dtype=torch.float64), batch_norm(4)
    s, t = s_and_t(layer)
    W, c = conv.weight.detach(), conv.bias.detach()
    W_new = torch.stack([torch.stack([s[i] * W[o, i] for i in range(4)]) for o in range(3)])
    c_new = torch.stack([c[o] + sum(W[o, i, k] * t[i] for i in range(4) for k in range(2)) for o in range(3)])
    x = normal(2, 4, 6)
    close(layer_by_loops(W_new, c_new, x), conv(layer(x)).detach())
    made = folded(layer, conv, shape=(2, 4, 6))[1]
    close(made.weight.detach(), W_new)
    close(made.bias.detach(), c_new)


def bordered(border):
    conv, layer = nn.Conv1d(4, 3, 3, padding=2, dilation=2, stride=2, dtype=torch.float64), batch_norm(4)
    found = cs.fold(nn.Sequential(layer, conv).eval(), (2, 4, 7), border=border)
    assert found.ledger.folded == 1
    return conv, layer, found.model[1]


@formula(
    15,
    r"""c'_{op} = c_o + \sum_i t_i \sum_{k:\ p + k\ \text{on the input}} W_{oik}""",
)
def test_a_bias_for_each_position():
    conv, layer, made = bordered("map")
    s, t = s_and_t(layer)
    W, bias = conv.weight.detach(), torch.zeros(3, 4, dtype=torch.float64)
    for o in range(3):
        for p in range(4):
            bias[o, p] = conv.bias[o]
            for i in range(4):
                for k in range(3):
                    if 0 <= 2 * p - 2 + 2 * k < 7:  # stride 2, padding 2, dilation 2
                        bias[o, p] += t[i] * W[o, i, k]
    x = normal(2, 4, 7)
    zeros_around = F.conv1d(x, W * s.view(1, 4, 1), None, 2, 2, 2)
    close(zeros_around + bias.detach(), conv(layer(x)).detach())
    close(made.bias.detach().squeeze(0), bias.detach())


@formula(16, r"s_i\,x'_i + t_i = 0 \quad\text{for}\quad x'_i = -\frac{t_i}{s_i}")
def test_padding_with_what_a_zero_stands_for():
    conv, layer, made = bordered("pad")
    s, t = s_and_t(layer)
    close(s * (-t / s) + t, torch.zeros(4, dtype=torch.float64))
    close(made.border.detach().flatten(), -t / s)
    x = normal(2, 4, 7)
    around = (-t / s).view(1, 4, 1).expand(2, 4, 2)
    W, c = made.weight.detach(), made.bias.detach()
    close(F.conv1d(torch.cat([around, x, around], 2), W, c, 2, 0, 2), conv(layer(x)).detach())


@formula(
    17,
    r"""a = s_n\,a_{y_n} \ \text{ with } a_{y_n} > 0, \qquad b_{x_n} = \frac{a\,t_n}{s_n}, \qquad
    b_{F_n} = a \left( \frac{t_{n+1}}{s_{n+1}} - \frac{t_n}{s_n} \right)""",
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_stream_of_two_blocks(sign):
    """Channel by channel, by hand; ``sign``: that of all gammas, and so of the stream's scale."""
    (W1, c1), (W2, c2) = ((normal(3, seed=n), normal(3, seed=n + 1)) for n in (1, 3))
    s = [sign * positive(3, seed=n) for n in (5, 6, 7)]
    t = [normal(3, seed=n) for n in (8, 9, 10)]
    x = normal(5, 3, seed=11)
    a = sign * positive(3, seed=12)
    a_y = [a / s_n for s_n in s]
    assert all((each > 0).all() for each in a_y)
    b_x = [a * t_n / s_n for s_n, t_n in zip(s, t, strict=True)]
    b_F = [a * (t[n + 1] / s[n + 1] - t[n] / s[n]) for n in (0, 1)]
    with_norms, without = x, a * x + b_x[0]
    for n, (W, c) in enumerate(((W1, c1), (W2, c2))):
        with_norms = with_norms + W * torch.relu(s[n] * with_norms + t[n]) + c
        without = without + a * W / a_y[n] * torch.relu(without) + a * c + b_F[n]
        close(without, a * with_norms + b_x[n + 1])
    close(torch.relu(without) / a_y[2], torch.relu(s[2] * with_norms + t[2]))


@formula(18, r"b_x = \frac{a\,t_1}{s_1} = \frac{a\,t_2}{s_2} = \dots")
def test_two_readers_of_one_value_ask_for_one_shift():
    a, s1, s2, t1 = 0.7, 0.5, 2.0, -1.0
    b_x = a * t1 / s1
    x = normal(50, seed=1)
    for t2, agrees in ((s2 * t1 / s1, True), (s2 * t1 / s1 + 0.2, False)):
        without = a * x + b_x  # what both ReLUs read
        for s, t in ((s1, t1), (s2, t2)):
            gap = (torch.relu(without) * s / a - torch.relu(s * x + t)).abs().max().item()
            assert (gap < 1e-12) == (agrees or s == s1)


@formula(19, r"y' = x' + r, \qquad r = a_y\,t + b_y - b_x")
def test_what_is_left_of_a_partly_folded_batch_norm():
    layer, x = batch_norm(4), normal(2, 4, 5)
    s, t = s_and_t(layer)
    a_y, b_y, b_x = (normal(4, seed=seed) for seed in (5, 6, 7))
    r = a_y * t + b_y - b_x
    close(
        column(s * a_y) * x + column(b_x) + column(r),
        column(a_y) * layer(x).detach() + column(b_y),
    )
    net = nn.Sequential(nn.Conv1d(3, 4, 1, dtype=torch.float64), nn.ReLU(), batch_norm(4, signs=(1,)))
    found = cs.fold(net.eval(), (2, 3, 5))
    assert found.ledger.partial == 1
    close(found.model[2].bias.detach().flatten(), s_and_t(net[2])[1])  # a_y = 1, b_y = b_x = 0


@formula(
    20,
    r"""K = \sum_j s_j\,P_j K_j, \qquad c = \sum_j \left( s_j\,c_j + t_j \right)""",
)
def test_parallel_branches():
    square, point = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    norms = [batch_norm(4, nn.BatchNorm2d, signs) for signs in ((1, -1), (-1, 1), (1,), (-1,))]
    pool = nn.AvgPool2d(3, 1, 1)
    square.double()
    point.double()
    kernels = [square.weight.detach(), *(torch.zeros(4, 4, 3, 3, dtype=torch.float64) for _ in range(3))]
    kernels[1][:, :, 1, 1] = point.weight.detach()[:, :, 0, 0]
    for o in range(4):
        kernels[2][o, o, 1, 1] = 1
        kernels[3][o, o] = 1 / 9
    biases = [square.bias.detach(), point.bias.detach(), 0, 0]
    K, c = torch.zeros_like(kernels[0]), torch.zeros(4, dtype=torch.float64)
    for norm, kernel, bias in zip(norms, kernels, biases, strict=True):
        s, t = s_and_t(norm)
        K += s.view(4, 1, 1, 1) * kernel
        c += s * bias + t
    x = normal(2, 4, 6, 5)
    branches = norms[0](square(x)) + norms[1](point(x)) + norms[2](x) + norms[3](pool(x))
    close(F.conv2d(x, K, c, padding=1), branches.detach())


@formula(21, r"\mathrm{error} = \frac{\max |y' - y|}{\max |y|} \le 10^{-9}")
def test_the_error_of_a_proof():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(4, nn.BatchNorm2d)).double().eval()
    x = normal(2, 3, 6, 6)
    found = cs.fold(net, x)
    with torch.no_grad():
        y, y_new = net(x), found.model(x)
    error = ((y_new - y).abs().max() / y.abs().max()).item()
    assert 0 < error <= found.max_error <= 1e-13  # the largest over more inputs than this one
    assert found.proof.threshold == 1e-9
    wrong = copy.deepcopy(found.model)
    with torch.no_grad():
        wrong[0].weight.mul_(net[1].weight.sign().view(1, -1, 1, 1)[:, :3])  # along the wrong axis
        assert ((wrong(x) - y).abs().max() / y.abs().max()).item() > 1e-3


@formula(
    22,
    r"""\max_c |s_c| = \max_c \frac{|\gamma_c|}{\sqrt{\sigma_c^2 + \varepsilon}}""",
)
def test_magnification():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(4, nn.BatchNorm2d)).double().eval()
    by_hand = max(
        abs(gamma) / (variance + net[1].eps) ** 0.5
        for gamma, variance in zip(net[1].weight.tolist(), net[1].running_var.tolist(), strict=True)
    )
    assert cs.fold(net, (2, 3, 6, 6)).ledger.entries[0].magnification == pytest.approx(by_hand, rel=1e-12)

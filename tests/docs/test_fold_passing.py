"""Formulas 4 and 9 to 13 of ``docs/folding.md``, and its table of operators: what passes which gauge.

Whether an operator passes a gauge is found by least squares: for f(a x + b), the best scale and shift of f(x)
per channel, and what they leave over.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from docs.fold_quoted import close, formula, normal, positive

PAGE = (Path(__file__).parents[2] / "docs" / "folding.md").read_text()
CHANNELS = 4
SHAPE = (3, CHANNELS, 6, 6)
SIDE = normal(*SHAPE, seed=40)
POINTS = torch.softmax(normal(3, 36, 36, seed=41), -1)
GATE = normal(3, CHANNELS, 1, 1, seed=42)
CONSTANT = normal(CHANNELS, 1, 1, seed=43)
TAIL = F.pad(SIDE, (1, 1, 1, 1))


def attend(x):
    return (POINTS @ x.flatten(2).mT).mT


# Each row of the table: functions of x that keep or drop channels in order, and whether any, only positive
# or no scales pass, and whether shifts do. What comes beside x (the other summand) is as it was.
ROWS = {
    "dropout, identity, view": (
        [
            lambda x: F.dropout(x, training=False),
            lambda x: x.flatten(2),
            lambda x: x.mT,
            lambda x: x[:, :, 1:3],
        ],
        "any",
        True,
    ),
    "concatenation": ([lambda x: torch.cat([x, x], 1)], "any", True),
    "addition, subtraction": ([lambda x: x + 3 * x, lambda x: 2 * x - 5 * x.flip(3)], "any", True),
    "a constant per channel added": (
        [lambda x: x + CONSTANT, lambda x: CONSTANT - x, lambda x: x + 2],
        "any",
        True,
    ),
    "a constant per channel multiplied": ([lambda x: CONSTANT * x, lambda x: x / 3], "any", True),
    "average pooling without zeros": (
        [
            lambda x: F.avg_pool2d(x, 2),
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            lambda x: F.adaptive_avg_pool2d(x, 3),
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
            lambda x: F.interpolate(x, scale_factor=2),
            lambda x: x.mean(3),
        ],
        "any",
        True,
    ),
    "average pooling that counts zeros": ([lambda x: F.avg_pool2d(x, 3, 2, 1)], "any", False),
    "sum over $n$ positions": ([lambda x: x.sum(3)], "any", True),
    "max-pooling, maximum": (
        [lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: x.amax(3)],
        "positive",
        True,
    ),
    "ReLU, leaky ReLU, PReLU": (
        [
            F.relu,
            lambda x: F.leaky_relu(x, 0.1),
            lambda x: F.prelu(x, CONSTANT.flatten() / 9),
        ],
        "positive",
        False,
    ),
    "a value times another value": (
        [lambda x: x * GATE, lambda x: x * SIDE, lambda x: x / GATE],
        "any",
        False,
    ),
    "matrix product with rows": ([attend], "any", True),
    "padding with the value's own": (
        [lambda x, mode=mode: F.pad(x, (1, 2, 1, 0), mode) for mode in ("reflect", "replicate", "circular")],
        "any",
        True,
    ),
    "padding with zeros": ([lambda x: F.pad(x, (1, 1, 1, 1))], "any", False),
    "sigmoid, tanh, SiLU": (
        [
            torch.sigmoid,
            torch.tanh,
            F.silu,
            F.gelu,
            F.hardswish,
        ],
        "none",
        False,
    ),
}


def rows():
    table = PAGE.partition("| operator | scale | shift |\n|---|---|---|\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_every_row_of_the_table_is_tried():
    names = [row[0] for row in rows()]
    assert len(names) == len(ROWS)
    for name, start in zip(names, ROWS, strict=True):
        assert name.startswith(start)


def left_over(function, scale, shift):
    """How far f(a x + b) is from the nearest a' f(x) + b' per channel, in parts of its deviation."""
    x = normal(*SHAPE, seed=44)
    a, b = (numbers.view(CHANNELS, 1, 1) for numbers in (scale, shift))
    before, after = function(x), function(a * x + b)
    worst = 0.0
    for channel in range(before.shape[1]):
        y0, y = before[:, channel].flatten(), after[:, channel].flatten()
        system = torch.stack([y0, torch.ones_like(y0)], 1)
        rest = y - system @ torch.linalg.lstsq(system, y[:, None]).solution[:, 0]
        worst = max(worst, (rest.abs().max() / (y - y.mean()).abs().max()).item())
    return worst


ZERO = torch.zeros(CHANNELS, dtype=torch.float64)
ONE = ZERO + 1


@formula(4, r"f(a_x\,x + b_x) = a_y\,f(x) + b_y")
@pytest.mark.parametrize("row", ROWS)
def test_what_the_table_says_of_an_operator(row):
    functions, scales, passes_shifts = ROWS[row]
    (told,) = ([scale, shift] for name, scale, shift in rows() if name.startswith(row))
    assert (
        told[0].split()[0].strip(",")
        in {"any": ("any", "that"), "positive": ("positive",), "none": ("none",)}[scales]
    )
    assert told[1].startswith("none") != passes_shifts
    for function in functions:
        assert (left_over(function, positive(CHANNELS, seed=1), ZERO) < 1e-12) == (scales != "none")
        assert (left_over(function, -positive(CHANNELS, seed=1), ZERO) < 1e-12) == (scales == "any")
        assert (left_over(function, ONE, normal(CHANNELS, seed=2)) < 1e-12) == passes_shifts
        if passes_shifts:
            assert left_over(function, positive(CHANNELS, seed=1), normal(CHANNELS, seed=2)) < 1e-12


@formula(9, r"a_y = a_1 = a_2, \qquad b_y = b_1 + \alpha\,b_2")
def test_addition():
    x1, x2, alpha = normal(20, seed=1), normal(20, seed=2), -1.7
    a, b1, b2 = 0.6, 0.4, -2.0
    y = x1 + alpha * x2
    close((a * x1 + b1) + alpha * (a * x2 + b2), a * y + (b1 + alpha * b2))
    unlike = (a * x1) + alpha * (1.5 * a * x2)  # two scales: no scale of the sum
    assert torch.corrcoef(torch.stack([unlike, y]))[0, 1] < 1 - 1e-3


@formula(
    10,
    r"""y = x + k:\ \ a_y = a_x,\ \ b_y = b_x + (1 - a_x)\,k \qquad\qquad
    y = k\,x:\ \ a_y = a_x,\ \ b_y = k\,b_x""",
)
def test_constants():
    x, k, a_x, b_x = normal(20), -1.3, 0.6, 0.4
    close((a_x * x + b_x) + k, a_x * (x + k) + (b_x + (1 - a_x) * k))
    close(k * (a_x * x + b_x), a_x * (k * x) + k * b_x)


@formula(11, r"a_y = a_x, \qquad b_y = S\,b_x \qquad\text{with } S = \sum_j w_j")
def test_weighted_sums():
    x, w, a_x, b_x = normal(20, seed=1), normal(20, seed=2), -0.6, 0.4
    close((w * (a_x * x + b_x)).sum(), a_x * (w * x).sum() + w.sum() * b_x)
    close(POINTS.sum(-1), torch.ones(3, 36, dtype=torch.float64))


@formula(
    12,
    r"""\max_j\,(a\,x_j + b) = a \max_j x_j + b, \qquad
    \max(a\,x, 0) = a\,\max(x, 0) \qquad\text{for } a > 0""",
)
def test_maxima():
    x, a, b = normal(20).tolist(), 0.6, 0.4
    close(max(a * x_j + b for x_j in x), a * max(x) + b)
    for x_j in x:
        close(max(a * x_j, 0.0), a * max(x_j, 0.0))
    assert max(-a * x_j for x_j in x) != -a * max(x)


@formula(13, r"(a\,x)\,g = a\,(x\,g)")
def test_gates():
    x, g, a = normal(20, seed=1), normal(20, seed=2), -0.6
    close((a * x) * g, a * (x * g))
    close((a * x) / g, a * (x / g))

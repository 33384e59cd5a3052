"""Sums, constants added and constants that multiply: equations between shifts, and common scales."""

import pytest
import torch
from torch import nn

from fold.gauge.claims import case
from fold.gauge.passing import ALL, SCALES, SHIFT, admitted, true
from fold.gauge.trials import assert_claim, assert_needed

IMAGE = (2, 4, 3, 4)
SQUARE = (3, 3, 3, 3)


def gains(*shape):
    return {"gain": lambda: nn.Parameter(torch.randn(shape))}


CHANNELS, LAST, ROWS, ONE = gains(4, 1, 1), gains(4), gains(3, 1), gains(1)

CASES = {
    "add": case(lambda s, x, y: x + y, IMAGE, IMAGE),
    "add to itself": case(lambda s, x: x + x, IMAGE),
    "add with alpha": case(lambda s, x, y: torch.add(x, y, alpha=-2.5), IMAGE, IMAGE),
    "add in place": case(lambda s, x, y: x.clone().add_(y, alpha=3), IMAGE, IMAGE),
    "iadd": case(lambda s, x, y: x.clone().__iadd__(y), IMAGE, (4, 1, 1)),
    "add, right side broadcast": case(lambda s, x, y: x + y, IMAGE, (2, 4, 1, 1)),
    "add, left side broadcast": case(lambda s, x, y: x + y, (4, 1, 1), IMAGE),
    "add, both broadcast": case(lambda s, x, y: x + y, (2, 4, 1, 1), (2, 1, 3, 1)),
    "add of equal sizes": case(lambda s, x, y: x + y, SQUARE, (3, 3)),
    "add of other dtypes": case(lambda s, x, y: x + y.float(), IMAGE, IMAGE, close=1e-5),
    "add a number": case(lambda s, x: x + 0.5, IMAGE),
    "add zero": case(lambda s, x: x + 0, IMAGE),
    "add a number with alpha": case(lambda s, x: torch.add(x, 0.5, alpha=3), IMAGE),
    "add channels": case(lambda s, x: x + s.gain, IMAGE, **CHANNELS),
    "add channels, other side": case(lambda s, x: s.gain + x, IMAGE, **CHANNELS),
    "add channels with alpha": case(lambda s, x: torch.add(x, s.gain, alpha=-2), IMAGE, **CHANNELS),
    "add to channels with alpha": case(lambda s, x: torch.add(s.gain, x, alpha=-2), IMAGE, **CHANNELS),
    "add columns": case(lambda s, x: x + s.gain, IMAGE, **LAST),
    "add rows": case(lambda s, x: x + s.gain, SQUARE, **ROWS),
    "add positions": case(lambda s, x: x + s.gain, IMAGE, **gains(1, 4, 3, 4)),
    "add one": case(lambda s, x: x + s.gain, IMAGE, **ONE),
    "add what repeats itself": case(lambda s, x: x + s.gain.repeat(1, 3, 4), IMAGE, **CHANNELS),
    "add a constant in place": case(lambda s, x: x.clone().add_(s.gain, alpha=2), IMAGE, **CHANNELS),
    "add to a larger constant": case(lambda s, x: x + s.gain, (4, 1, 1), **gains(2, 4, 3, 1)),
    "sub": case(lambda s, x, y: x - y, IMAGE, IMAGE),
    "sub with alpha": case(lambda s, x, y: torch.sub(x, y, alpha=2), IMAGE, IMAGE),
    "sub in place": case(lambda s, x, y: x.clone().sub_(y), IMAGE, (4, 1, 1)),
    "sub itself": case(lambda s, x: x - x, IMAGE),
    "sub its mean": case(lambda s, x: x - x.mean((2, 3), keepdim=True), IMAGE),
    "sub a constant": case(lambda s, x: x - s.gain, IMAGE, **CHANNELS),
    "sub from a constant": case(lambda s, x: s.gain - x, IMAGE, **CHANNELS),
    "sub from columns": case(lambda s, x: torch.sub(s.gain, x, alpha=3), IMAGE, **LAST),
    "rsub": case(lambda s, x: 2.0 - x, IMAGE),
    "rsub with alpha": case(lambda s, x: torch.rsub(x, 0.5, alpha=3), IMAGE),
    "rsub of two": case(lambda s, x, y: torch.rsub(x, y, alpha=3), IMAGE, (4, 1, 1)),
    "rsub of a constant": case(lambda s, x: torch.rsub(x, s.gain, alpha=3), IMAGE, **CHANNELS),
    "mul by a number": case(lambda s, x: -2.5 * x, IMAGE),
    "mul by zero": case(lambda s, x: 0 * x, IMAGE, slack=("",)),  # of zeros, everything is true
    "mul by channels": case(lambda s, x: s.gain * x, IMAGE, **CHANNELS),
    "mul by channels in place": case(lambda s, x: x.clone().mul_(s.gain), IMAGE, **CHANNELS),
    "mul by columns": case(lambda s, x: x * s.gain, IMAGE, **LAST),
    "mul by positions": case(lambda s, x: x * s.gain, IMAGE, **gains(1, 4, 3, 4)),
    "mul by a larger constant": case(lambda s, x: x * s.gain, (4, 1, 1), **gains(2, 4, 3, 1)),
    "mul by a computed constant": case(lambda s, x: x * (1 + s.gain).exp(), IMAGE, **CHANNELS),
    "mul by what is in the code": case(lambda s, x: x * torch.ones(4, 1, 1), IMAGE),
    "mul by another": case(lambda s, x, y: x * y, IMAGE, IMAGE),
    "mul by a gate": case(lambda s, x, y: x * y, IMAGE, (2, 4, 1, 1)),
    "mul by a gate, other side": case(lambda s, x, y: x * y, (2, 1, 3, 4), IMAGE),
    "mul of rows and columns": case(lambda s, x, y: x * y, (2, 4, 1, 1), (2, 1, 3, 1)),
    "mul by itself": case(lambda s, x: x * x, IMAGE),
    "mul by its own gate": case(lambda s, x: x * x.sigmoid(), IMAGE),
    "div by a number": case(lambda s, x: x / -4, IMAGE),
    "div by channels": case(lambda s, x: x / s.gain, IMAGE, **CHANNELS),
    "div by columns": case(lambda s, x: x / s.gain, IMAGE, **LAST),
    "div in place": case(lambda s, x: x.clone().div_(s.gain), IMAGE, **CHANNELS),
    "div of a constant": case(lambda s, x: s.gain / x, IMAGE, **CHANNELS),
    "div with floor": case(lambda s, x: torch.div(x, 0.5, rounding_mode="floor"), IMAGE),
    "div by another": case(lambda s, x, y: x / y, IMAGE, (2, 4, 1, 1)),
    "div of a smaller one": case(lambda s, x, y: x / y, (2, 4, 1, 1), IMAGE),
    "div by itself": case(lambda s, x: x / x, IMAGE),
    "neg": case(lambda s, x: -x, IMAGE),
    "neg in place": case(lambda s, x: x.clone().neg_(), IMAGE),
    "a residual stream": case(lambda s, x, y: (z := x + y) + (z - 2 * y) * 3, IMAGE, IMAGE),
    "standardised": case(lambda s, x: (x - s.gain) / (s.gain + 3) * 2 + 1, IMAGE, **CHANNELS),
}

STRICTER = {
    # the shift isn't the same for all of a channel
    **dict.fromkeys(
        ["add columns", "add rows", "add positions", "add to a larger constant", "sub from columns"], SCALES
    ),
    **dict.fromkeys(
        ["mul by columns", "mul by positions", "mul by a larger constant", "div by columns"], SHIFT
    ),
    # both sides' scales could pass, as their product
    **dict.fromkeys(["mul by another", "mul by a gate", "mul by a gate, other side"], SCALES),
    **dict.fromkeys(["mul of rows and columns", "mul by itself", "div of a constant"], SCALES),
    **dict.fromkeys(["div by another", "div of a smaller one"], SCALES),
    "div by itself": ALL,
}
"""What would pass, and isn't let through."""


@pytest.mark.parametrize("name", CASES)
def test_claim(name):
    assert_claim(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_asked_without_need(name):
    assert_needed(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_all_passes_that_can(name):
    assert admitted(CASES[name]) == true(CASES[name]) - STRICTER.get(name, set())

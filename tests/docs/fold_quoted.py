"""How tests of ``docs/folding.md`` quote its formulas, and random channels to evaluate them on.

Legend: N samples, C, I, O channels, K taps, L positions.
"""

import torch

from docs.quoted import close

QUOTED = {}

__all__ = ["QUOTED", "close", "formula", "layer_by_loops", "normal", "positive"]


def formula(number, text):
    """Register a formula that the test below it evaluates."""

    def quoting(test):
        QUOTED[number] = " ".join(text.split())
        return test

    return quoting


def normal(*shape, seed=0):
    """Random float64 numbers, none of them near zero."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x + x.sign() * 0.3


def positive(*shape, seed=0):
    return normal(*shape, seed=seed).abs()


def layer_by_loops(weight_OIK, bias_O, x_NIL):
    """A one-dimensional convolution without padding, tap by tap."""
    num_outputs, num_inputs, num_taps = weight_OIK.shape
    length = x_NIL.shape[2] - num_taps + 1
    y = torch.zeros(x_NIL.shape[0], num_outputs, length, dtype=torch.float64)
    for o in range(num_outputs):
        for p in range(length):
            for i in range(num_inputs):
                for k in range(num_taps):
                    y[:, o, p] += weight_OIK[o, i, k] * x_NIL[:, i, p + k]
            y[:, o, p] += bias_O[o]
    return y

"""Products of two values: one side's gauge passes, and its shift where the other side's rows sum to 1."""

import pytest
import torch

from fold.gauge.claims import case
from fold.gauge.passing import ALL, SCALES, SHIFT, admitted, true
from fold.gauge.trials import assert_claim, assert_needed

LEFT, RIGHT = (2, 4, 3), (2, 3, 5)
BATCHED = ((2, 2, 4, 3), (2, 2, 3, 5))

CASES = {
    "bmm": case(lambda s, x, y: torch.bmm(x, y), LEFT, RIGHT),
    "bmm of equal sizes": case(lambda s, x, y: torch.bmm(x, y), (3, 3, 3), (3, 3, 3)),
    "bmm with itself": case(lambda s, x: torch.bmm(x, x), (2, 3, 3)),
    "bmm with its transpose": case(lambda s, x: torch.bmm(x, x.mT), LEFT),
    "bmm by a constant": case(lambda s, x: torch.bmm(x, torch.ones(2, 3, 5, dtype=x.dtype)), LEFT),
    "matmul": case(lambda s, x, y: x @ y, *BATCHED),
    "attention": case(lambda s, x, y: x.softmax(-1) @ y, *BATCHED),
    "attention through views": case(
        lambda s, x, y: x.softmax(-1).unsqueeze(1).expand(-1, 2, -1, -1).reshape(4, 4, 3).clone()
        @ y.repeat(2, 1, 1),
        LEFT, RIGHT,
    ),
    "attention of equal sizes": case(lambda s, x, y: x.softmax(1) @ y, (3, 3, 3), (3, 3, 3)),
    "attention, transposed": case(lambda s, x, y: x.softmax(-1).mT @ y, (2, 3, 3), RIGHT),
    "attention over values on the left": case(lambda s, x, y: y @ x.softmax(-1), LEFT, (2, 5, 4)),
    "attention, cut": case(lambda s, x, y: x.softmax(-1)[..., :2] @ y[:, :2], LEFT, RIGHT),
    "attention, scaled afterwards": case(lambda s, x, y: (2 * x.softmax(-1)) @ y, LEFT, RIGHT),
    "attention, reshaped rows": case(lambda s, x, y: x.softmax(-1).reshape(2, 3, 4) @ y, LEFT, (2, 4, 5)),
    "attention, expanded rows": case(
        lambda s, x, y: x.softmax(-1).expand(2, 4, 3) @ y, (2, 4, 1), RIGHT, slack=("_softmax",)
    ),  # of one number it is 1
    "softmax": case(lambda s, x: x.softmax(-1), LEFT),
}  # fmt: skip

STRICTER = {
    # both sides' scales could pass, as their product
    **dict.fromkeys(["bmm", "bmm of equal sizes", "bmm with its transpose", "matmul"], SCALES),
    # the shift isn't the same everywhere, or a softmax hides it
    **dict.fromkeys(["bmm by a constant", "attention", "attention through views", "softmax"], SHIFT),
    "attention, scaled afterwards": SHIFT,
    "attention, expanded rows": ALL,
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

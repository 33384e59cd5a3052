"""The verdicts of the comparison of projections, on answers whose kind is known."""

import pytest
import torch
from bench.sight_peers import Truth, verdict

RULED, HALF, PLAIN = torch.eye(3).double().unbind(0)


@pytest.mark.parametrize(
    ("found", "answer", "kind", "cell"),
    [
        (RULED, RULED, "equal", "equal, bit"),
        (RULED * (1 + 4e-16), RULED, "equal", "equal"),
        (RULED * 1.01, RULED, "wrong", "**wrong** 0.01"),
        (PLAIN, RULED, "gradient", "**gradient** 1.4"),
        (HALF, RULED, "gates", "gates 1.4"),
        (HALF, None, "mixed", "**mixed**"),
        (PLAIN, None, "gradient", "**gradient**"),
        (RULED, None, "wrong", "**wrong**"),
        ("SomeError: no", None, "–", "–"),
        ("SomeError: no", RULED, "refuses", "refuses (SomeError)"),
    ],
)
def test_every_kind_of_answer_is_told_from_the_others(found, answer, kind, cell):
    assert verdict(found, Truth(answer, HALF, PLAIN)) == (kind, cell)


def test_the_gradient_is_right_under_its_own_name():
    assert verdict(PLAIN, Truth(PLAIN, PLAIN, PLAIN), is_gradient=True) == ("equal", "equal, bit")

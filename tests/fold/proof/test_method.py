"""The proof's sentence: what was tried, and nothing else."""

import pytest
import torch

from convscope.fold.proof.comparison import Comparison
from convscope.fold.proof.method import method_of
from convscope.fold.proof.trials import described, given, of_other_batch, of_other_size, random_like

SHAPE = (2, 3, 6, 5)
KINDS = {
    "given": given,
    "random": lambda x: random_like(x, 1),
    "other size": lambda x: of_other_size(x, 2),
    "other number": lambda x: of_other_batch(x, 3),
}


def said(inputs, *kinds, **options):
    trials = tuple(next(KINDS[kind](described(inputs, torch.float32))) for kind in kinds)
    return method_of(Comparison(0.0, 0.0, trials=trials, **options))


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (("given",), "mode, on the inputs given; and"),
        (("given", "other number"), "mode, on the inputs given and on another number of them; and"),
        (
            ("given", "random", "other size"),
            "on the inputs given, on random ones of their shape and on ones of another size; and",
        ),
    ],
)
def test_kinds_that_ran(kinds, text):
    assert text in said(torch.randn(SHAPE), *kinds)


def test_shapes_are_no_inputs_given():
    text = said(SHAPE, "given", "random")
    assert "on random inputs of the shape given and on other random ones" in text


def test_what_was_tried_in_vain():
    text = said(torch.randn(SHAPE), "given", missing=("other size", "other number"))
    assert (
        "no other size: the network doesn't take one; no other number: the network doesn't take one" in text
    )
    assert "(no other size: it is folded for one)" in said(torch.randn(SHAPE), "given", one_size=True)
    assert "no other" not in said(torch.randn(SHAPE[:2]), "given")

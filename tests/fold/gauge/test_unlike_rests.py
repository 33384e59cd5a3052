"""One batch norm whose gammas are unlike the rest's: it alone stays, or nothing does.

Oracle: outputs in float64, and how many batch norms fold of the most that can (each derivation is beside it).
"""

import pytest

from convscope.fold import fold
from fold.gauge.streams import SHAPE, batch_norms_run, norms, stream
from fold.nets import Functional


@pytest.fixture
def positive(randomised):
    """A function that gives batch norms random numbers, all gammas positive."""

    def make(net):
        randomised(net)
        for norm in norms(net):
            norm.weight.data.abs_().add_(0.1)
        return net.double()

    return make


def verdicts(folded):
    return [entry.verdict for entry in folded.ledger.entries]


@pytest.mark.parametrize("odd", range(5))
@pytest.mark.parametrize("gamma", [-0.5, 0.0])
def test_only_the_odd_one_stays(odd, gamma, positive, relative_error):
    """A channel's scale has one sign, and isn't 0 if anybody reads it: all but the odd one agree."""
    net = positive(stream(4))
    norms(net)[odd].weight.data[1] = gamma
    folded = fold(net, SHAPE)
    assert verdicts(folded) == ["kept" if i == odd else "folded" for i in range(5)]
    assert batch_norms_run(folded.model, SHAPE) == 1
    assert relative_error(net, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize(
    ("blocks", "other"), [pytest.param(4, (0, 2), id="larger"), pytest.param(3, (1, 3), id="first")]
)
def test_of_two_camps_one_folds(blocks, other, positive, relative_error):
    """The larger one; of two equal ones, that of the first batch norm."""
    net = positive(stream(blocks))
    for index in other:
        norms(net)[index].weight.data[3] *= -1
    folded = fold(net, SHAPE)
    assert verdicts(folded) == ["kept" if index in other else "folded" for index in range(blocks + 1)]
    assert relative_error(net, folded.model, *SHAPE) < 1e-12


def test_an_odd_one_of_several_calls_stays_whole(positive, relative_error):
    """The first batch norm runs in two streams; in one of them it is unlike the others."""
    one, two = stream(3), stream(3)
    two[1].norm = one[1].norm
    net = positive(Functional(lambda s, x: s.one(x) + s.two(x.flip(3)), one=one, two=two))
    one[1].norm.weight.data[2] = 0
    folded = fold(net, SHAPE)
    kept = [entry.address for entry in folded.ledger.entries if entry.verdict == "kept"]
    assert kept == ["one.1.norm#1", "one.1.norm#2"]
    assert relative_error(net, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("gamma", [-0.5, 0.0])
def test_what_stays_for_hooks_still_takes_gauges(gamma, positive, relative_error):
    """A kept batch norm divides by the scale of what it reads, which mustn't vanish for others' sake."""
    net = positive(stream(3))
    norms(net)[0].weight.data[1] = gamma
    norms(net)[1].register_forward_hook(lambda module, args, result: None)
    folded = fold(net, SHAPE)
    assert verdicts(folded) == ["kept", "kept", "folded", "folded"]
    assert not any("taken back" in entry.reason for entry in folded.ledger.entries)
    assert relative_error(net, folded.model, *SHAPE) < 1e-12

"""Runs: what is read on the way, put in its place, and noticed."""

import pytest
import torch
from torch import nn

from convscope.fold.proof.runs import running
from convscope.fold.proof.trials import described, given
from fold.nets import Functional

X = torch.randn(2, 3, 8, 8)
TRIAL = next(given(described(X, torch.float32)))


def test_values_whole_and_here_and_there():
    net = nn.Sequential(nn.Identity(), nn.ReLU()).eval()
    with running(net, ["1#1"], None) as run:
        assert torch.equal(run(TRIAL, True).values["1#1"], X.relu())
        assert torch.equal(run(TRIAL, False).values["1#1"], X.relu()[:, :, ::2, ::2])


def test_a_listener_puts_values_in_their_place():
    net = nn.Sequential(nn.Identity(), nn.ReLU()).eval()
    with running(net, ["0#1"], None) as run:
        made = run(TRIAL, True, lambda address, value: value + 1 if address == "0#1" else None)
        assert torch.equal(made.values["0#1"], X)
        assert torch.equal(made.outputs[0], (X + 1).relu())
        assert torch.equal(run(TRIAL, True).outputs[0], X.relu())


@pytest.mark.parametrize(
    ("forward", "writes"),
    [(lambda s, x: x + 1, False), (lambda s, x: x.add_(1), True), (lambda s, x: x[0].zero_() + x, True)],
)
def test_writes_to_inputs_are_seen(forward, writes):
    before = X.clone()
    with running(Functional(forward), [], None) as run:
        assert run(TRIAL, True).writes is writes
    assert torch.equal(X, before)


def test_where_a_run_fails_and_how_far_it_came():
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Identity(), nn.Linear(5, 5))).eval()
    with running(net, ["0#1", "1.0#1", "1.1#1", "1#1"], None) as run:
        with pytest.raises(RuntimeError):
            run(TRIAL, True)
        assert run.failed_in == "1.1#1"
        assert run.reached == ("0#1", "1.0#1")

"""Whole networks with parallel branches: what is left, against timm's own merging of its own blocks.

timm's figures are those of ``reparameterize_model`` on the same networks, in float32, which is what it takes.
"""

import copy

import pytest
import torch
from torch import nn

from convscope.fold.edits import carry_out
from convscope.fold.merge import merge_branches
from convscope.tape import record
from fold.merge.branches import Block, bn, conv, difference, noise, ran

# network: parallel branches with a batch norm on the value itself, from the research's table; of these left
NETWORKS = {
    "repvgg_a0": 17,
    "mobileone_s0": 35,
    "fastvit_t8": 24,
    "repghostnet_050": 32,
    "repvit_m0_9": 23,
    "ghostnetv3_050": 32,
}
# The batch norms before repvit's two linear heads, which read no branches.
NOT_IN_BRANCHES = {"repvit_m0_9": 2}


def batch_norms_without_layer(model, x):
    """The batch norms that don't read a convolution's output, by the recorded run."""
    tape = record(model, (x,), device="cpu")
    calls = (call for call in tape.calls if call.op == "batch_norm")
    makers = (tape.producer(call.tensor("input")) for call in calls)
    return sum(maker is None or maker.op != "convolution" for maker in makers)


@pytest.mark.zoo
@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_keeps_more_than_with_its_own_merging(name, randomised):
    timm = pytest.importorskip("timm")
    from timm.utils.model import reparameterize_model

    model = randomised(timm.create_model(name)).double()
    x = noise(2, 3, 64, 64)
    y0, _, before, _ = ran(model, x)
    left = NOT_IN_BRANCHES.get(name, 0)
    assert batch_norms_without_layer(model, x) == NETWORKS[name] + left
    peer = reparameterize_model(copy.deepcopy(model).float())
    _, _, most, _ = ran(peer, x.float())
    twin = copy.deepcopy(model)
    merged = merge_branches(twin, (x,))
    carry_out(twin, merged.edits)
    y, _, convolutions, _ = ran(twin, x)
    assert batch_norms_without_layer(twin, x) == left
    assert convolutions <= most <= before
    assert merged.unmerged == ()
    assert difference(y0, y) < 1e-12
    with torch.no_grad():
        other = noise(3, 3, 96, 64)
        assert difference(model(other), twin(other)) < 1e-12


def test_there_is_nothing_to_do_where_no_sum_has_two_branches_of_one_value(randomised):
    residual = Block(lambda s, x: x + s.b(s.a(x).relu()), a=conv(), b=conv(1))
    net = randomised(nn.Sequential(conv(), bn(), residual, nn.ReLU(), conv(1), bn()))
    merged = merge_branches(net, (2, 4, 6, 5))
    assert (merged.merges, merged.unmerged) == ((), ())


def test_deep_sums_need_no_recursion(randomised):
    """A sum of 1,500 branches: deeper than Python's stack."""

    def many(self, x):
        out = self.a(x)
        for _ in range(1500):
            out = out + x
        return out

    net = randomised(nn.Sequential(Block(many, a=conv()), bn()))
    twin = copy.deepcopy(net).double()
    merged = merge_branches(twin, (1, 4, 3, 3))
    carry_out(twin, merged.edits)
    x = noise(1, 4, 3, 3)
    assert "add" not in ran(twin, x)[3]
    with torch.no_grad():
        assert difference(copy.deepcopy(net).double()(x), twin(x)) < 1e-11

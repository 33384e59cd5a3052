"""Rows rolled up per module: every depth adds up to the same totals, and to sums made by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope.core.errors import ConvscopeError
from convscope.cost import COLUMNS, cost
from convscope.tape import TrainingPlan


class Block(nn.Module):
    """Two linear layers of four, and an addition that belongs to no child."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


class Reused(nn.Module):
    """A block that runs three times, a head, a child called loss, and a parameter that nothing reads."""

    def __init__(self):
        super().__init__()
        self.block, self.head, self.loss = Block(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.unused = nn.Parameter(torch.zeros(7))

    def forward(self, x):
        for _ in range(3):
            x = self.block(x)
        return self.loss(self.head(x)).tanh()


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(checkpoint(self.body, x, use_reentrant=False).mean((2, 3)))


NETWORKS = {
    "reused": (Reused, (5, 4)),
    "checkpointed": (Checkpointed, (2, 3, 6, 6)),
    "one": (nn.PReLU, (3, 2)),
}


def rows(selection):
    return {row.address: row for row in selection.rows}


@pytest.mark.parametrize("plan", [TrainingPlan(), None], ids=["training", "inference"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_depth_adds_up_to_the_whole_network(name, depth, plan):
    make, shape = NETWORKS[name]
    found = cost(make(), shape, plan)
    rolled = found.rolled_up(depth)
    for column in COLUMNS:
        whole = sum(getattr(row, column) for row in found.rows)
        whole = getattr(found.totals, column, whole)
        assert sum(getattr(row, column) for row in rolled.rows) == rolled.totals[column] == whole, column
    assert len({row.address for row in rolled.rows}) == len(rolled.rows)
    assert rolled.is_whole


def test_the_network_its_children_and_theirs_by_hand():
    found = cost(Reused(), (5, 4))
    block_macs, head_macs, loss_macs = 3 * 2 * 5 * 4 * 4, 5 * 4 * 2, 5 * 2 * 2

    whole = rows(found.rolled_up(0))
    assert list(whole) == ["self", "(loss)", "(unused)"]
    assert whole["self"].macs == block_macs + head_macs + loss_macs
    assert whole["self"].params == 2 * 16 + 8 + 4
    assert whole["(unused)"].params == 7
    assert whole["(unused)"].parameter_bytes == 28

    children = rows(found.rolled_up(1))
    assert list(children) == ["block", "head", "loss", "self:tanh", "(loss)", "(unused)"]
    assert children["block"].macs == block_macs
    assert children["block"].type_name == "Block"
    assert children["block"].params == 32  # once, however often it runs
    assert children["block"].activations == 3 * 4 * 5 * 4  # two linear layers, a ReLU and the addition
    assert children["block"].output_shape == (5, 4)
    assert (children["head"].op, children["block"].op) == ("linear", "")
    assert (children["loss"].macs, children["(loss)"].macs) == (loss_macs, 0)

    deepest = rows(found.rolled_up(2))
    assert list(deepest)[:4] == ["block.first", "block:relu", "block.second", "block:add"]
    assert deepest["block.first"].macs == block_macs // 2
    assert rows(found.rolled_up()) == deepest == rows(found.rolled_up(9))


def test_calls_are_counted():
    found = cost(Reused(), (5, 4))
    assert {row.address: row.calls for row in found.rolled_up(1).rows} == {
        "block": 3, "head": 1, "loss": 1, "self:tanh": 1, "(loss)": 1, "(unused)": 1
    }  # fmt: skip
    assert {row.calls for row in found.rolled_up(2).rows if row.path.startswith("block")} == {3}
    assert {row.calls for row in found.rows} == {1}


def test_what_backward_ran_again_is_no_further_call():
    body = rows(cost(Checkpointed(), (2, 3, 6, 6)).rolled_up(1))["body"]
    assert body.calls == 1
    assert body.recompute_flops == body.forward_flops > 0


def test_a_part_is_rolled_up_without_the_rest():
    part = cost(Reused(), (5, 4)).where("linear").rolled_up(1)
    assert [row.address for row in part.rows] == ["block", "head", "loss"]
    assert not part.is_whole
    assert part.share("macs") == 1.0
    assert part.shown["params"] == 44


def test_depths_that_make_no_sense():
    found = cost(Block(), (5, 4))
    with pytest.raises(ConvscopeError, match="depth -1"):
        found.rolled_up(-1)
    with pytest.raises(ConvscopeError, match="rolled up"):
        found.rolled_up(1).rolled_up(0)


def test_a_module_with_a_colon_in_its_name_is_rolled_up_as_one():
    net = nn.Sequential()
    net.add_module("stage:1", Block())
    block = cost(net, (5, 4)).rolled_up(1).rows[0]
    assert (block.path, block.type_name, block.macs) == ("stage:1", "Block", 2 * 5 * 4 * 4)
    rolled = {row.address: row.macs for row in cost(net, (5, 4)).rolled_up(None).rows}
    assert rolled["stage:1.first"] == 5 * 4 * 4
    assert rolled["stage:1:add"] == 0

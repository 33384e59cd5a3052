"""The paths that recordings find: against the paths that real inputs take, found by running them."""

import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.fold.paths.paths import recorded_paths
from convscope.tape import record


def block(inputs=4, outputs=4):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class Blocks(nn.Module):
    """Blocks a to d, and a forward that is a function of the network and its input."""

    def __init__(self, forward):
        super().__init__()
        self._forward = forward
        self.a, self.b, self.c, self.d = block(3), block(), block(), block()

    def forward(self, x):
        return self._forward(self, x)


def blocks_of(tape):
    """Which blocks ran, in order, from the tape's module calls."""
    return "".join(module.address.path for module in tape.modules if module.address.path in "abcd")


def branch(net, x):
    x = net.a(x)
    return net.d(net.b(x) if x.sum() > 0 else net.c(x))


def nested(net, x):
    x = net.a(x)
    if x.sum() > 0:
        x = net.b(x)
        if x.max() > 1:
            x = net.c(x)
    elif torch.equal(x, x.relu()):
        x = net.d(x)
    return x


def early_exit(net, x):
    """Leaves where the entropy of a classifier on the way is low, as BranchyNet does (arXiv 1709.01686)."""
    for part in (net.a, net.b, net.c):
        x = part(x)
        share = x.mean((2, 3)).softmax(1)
        if -(share * share.log()).sum(1).max() < 0.5:
            return share
    return net.d(x).mean((2, 3))


def checked(net, x):
    assert x.isfinite().all(), "infinite"
    if x.isnan().any():
        raise ValueError("not a number")
    return net.b(net.a(x))


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda net, x: net.b(net.a(x)), ["ab"]),
        (branch, ["acd", "abd"]),
        (nested, ["a", "ab", "ad", "abc"]),
        (early_exit, ["abcd", "a", "ab", "abc"]),
        (checked, ["ab"]),
        (lambda net, x: net.b(net.a(x)) * (2 if x.sum() > 0 else 3), ["ab", "ab"]),
        (lambda net, x: net.a(x) * len([bool(x.sum() > 0)]), ["a"]),
        (lambda net, x: net.a(x) * len([all((x.sum() > 0, x.max() < 3))]), ["a", "a"]),
    ],
)
def test_truth_values_are_turned_until_all_paths_are_found(forward, expected):
    model = Blocks(forward).eval()
    before = state_of(model)
    paths = recorded_paths(model, (5, 3, 4, 4))
    assert [blocks_of(tape) for tape in paths.tapes] == expected
    assert (paths.complete, paths.doubt) == (True, "")
    assert [path.open_at for path in paths.recorded] == [None] * len(expected)
    assert state_of(model) == before


@pytest.mark.parametrize("forward", [branch, nested, early_exit])
def test_every_real_input_takes_one_of_the_paths(forward):
    """The oracle: real runs on inputs scaled and shifted until every branch is taken."""
    model = Blocks(forward).eval()
    found = {blocks_of(tape) for tape in recorded_paths(model, (2, 3, 4, 4)).tapes}
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        x = torch.randn(2, 3, 4, 4) * 10 ** (seed % 4 - 1) + (seed % 3 - 1)
        seen.add(blocks_of(record(model, x, real=True)))
    assert len(seen) > 1
    assert seen <= found


def test_a_network_without_questions_is_recorded_once(monkeypatch):
    count = []
    import convscope.fold.paths.turns as turns

    monkeypatch.setattr(turns, "record", lambda *a, **k: count.append(1) or record(*a, **k))
    paths = recorded_paths(block(3).eval(), (7, 3, 4, 4))
    assert (len(count), len(paths.recorded), paths.complete, paths.notes) == (1, 1, True, ())
    assert paths.tapes[0].values[paths.tapes[0].inputs[0]].shape[0] == 7


def test_a_loop_is_followed_within_bounds():
    def loop(net, x):
        x = net.a(x)
        while x.norm() > 1:
            x = net.b(x)
        return x

    paths = recorded_paths(Blocks(loop).eval(), (2, 3, 4, 4), most=5)
    assert [blocks_of(tape) for tape in paths.tapes] == ["a", "ab", "abb", "abbb", "abbbb"]
    assert paths.doubt == "self#1 asks more of its tensors than 5 recordings can answer both ways"
    assert [path.open_at for path in paths.recorded[:-1]] == [None] * 4
    assert paths.recorded[-1].open_at == len(paths.tapes[-1].calls)  # after the last question


def test_a_loop_that_never_ends_as_assumed_ends_otherwise():
    def loop(net, x):
        while not (x.norm() < 1):
            x = net.a(x)[:, :3]
        return x

    paths = recorded_paths(Blocks(loop).eval(), (2, 3, 4, 4), most=4)
    assert [blocks_of(tape) for tape in paths.tapes] == ["", "a", "aa"]
    assert not paths.complete
    assert "200 others" in paths.notes[0]


@pytest.mark.parametrize(
    ("forward", "found"),
    [
        (lambda net, x: net.b(net.a(x)) if x.sum().item() > 0.5 else net.a(x), {"ab", "a"}),
        (lambda net, x: net.b(net.a(x)) if x.sum().item() < 0 else net.a(x), {"ab", "a"}),
        (lambda net, x: net.b(net.a(x)) if 2 < x.abs().sum().item() < 1e9 else net.a(x), {"ab", "a"}),
        (lambda net, x: net.b(net.a(x)) if int((x > 0).sum()) else net.a(x), {"ab", "a"}),
        (lambda net, x: net.b(net.a(x) * x.mean().item()), {"ab"}),
    ],
)
def test_numbers_are_tried_and_run_for_real_and_leave_a_doubt(forward, found):
    paths = recorded_paths(Blocks(forward).eval(), (6, 3, 4, 4))
    assert {blocks_of(tape) for tape in paths.tapes} == found
    assert paths.doubt == "self#1 reads numbers out of tensors, which may decide what runs"
    assert all(path.open_at is not None for path in paths.recorded)
    assert {tape.values[tape.inputs[0]].shape[0] for tape in paths.tapes} == {2}


def test_the_users_own_numbers_are_run():
    def forward(net, x):
        return net.b(net.a(x)) if abs(x.mean().item() - 77) < 0.5 else net.a(x)

    x = torch.full((6, 3, 4, 4), 77.0)
    assert {blocks_of(tape) for tape in recorded_paths(Blocks(forward).eval(), x).tapes} == {"a", "ab"}


def test_shapes_that_depend_on_data_need_real_runs():
    def forward(net, x):
        y = net.a(x)
        z = y.relu()
        return net.d(z[z.mean((1, 2, 3)) > -1])

    paths = recorded_paths(Blocks(forward).eval(), {"x": (6, 3, 4, 4)})
    assert [blocks_of(tape) for tape in paths.tapes] == ["ad"]
    assert "depends on what its tensors hold" in paths.doubt
    before = paths.tapes[0].calls[: paths.recorded[0].open_at]
    assert [call.op for call in before][-3:] == ["relu", "mean", "gt"]


def test_a_network_that_does_not_run_is_refused_as_a_recording_refuses_it():
    net = nn.Sequential(nn.Conv2d(4, 4, 1))
    for inputs in ((2, 3, 5, 5), (0, 3), "image"):
        with pytest.raises(ConvscopeError) as expected:
            record(net, inputs)
        with pytest.raises(ConvscopeError) as found:
            recorded_paths(net, inputs)
        assert str(found.value) == str(expected.value)


def test_a_turn_that_pytorch_breaks_leaves_a_doubt():
    def forward(net, x):
        x = net.a(x)
        return x.view(7, -1) if x.sum() > 0 else x  # fails for want of elements, not on purpose

    paths = recorded_paths(Blocks(forward).eval(), (2, 3, 4, 4))
    assert [blocks_of(tape) for tape in paths.tapes] == ["a"]
    assert "view.1 doesn't run" in paths.doubt
    assert paths.recorded[0].open_at == len(paths.tapes[0].calls)

"""What must not merge: lookalikes, and networks in which something else depends on a branch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold.edits import carry_out
from convscope.fold.merge import MergedBranches, merge_branches
from fold.merge.branches import Block, assert_same, bn, conv, difference, merged_twin, noise, ran, simple
from fold.merge.lookalikes import TRAPS

SHAPE, OTHER = (2, 4, 4, 4), (3, 4, 6, 5)


def outputs(model, x):
    result = model(x)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("case", TRAPS)
def test_traps(case, randomised):
    make, num_sums, num_left, why = TRAPS[case]
    net = randomised(make())
    twin, merged = merged_twin(net, SHAPE)
    assert len(merged.sums) == num_sums
    _, norms, _, _ = ran(twin, noise(*SHAPE))
    assert norms == num_left
    assert any(why in entry.reason for entry in merged.unmerged) or not why
    for shape in (SHAPE, OTHER) if "along" not in case else (SHAPE,):
        x = noise(*shape)
        pairs = zip(outputs(copy.deepcopy(net).double(), x.clone()), outputs(twin, x.clone()), strict=True)
        assert max(difference(y0, y) for y0, y in pairs) < 1e-12


@pytest.mark.parametrize("where", ["", "a", "b", "0"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_still_see_what_they_saw(where, kind, randomised):
    net = randomised(nn.Sequential(simple(), nn.ReLU()))
    seen = []
    hooked = net if where == "" else net[0] if where == "0" else net[0].get_submodule(where)
    getattr(hooked, kind)(lambda module, *values: seen.append(values[-1]))
    before = copy.deepcopy(net).double()
    twin, merged = merged_twin(net, SHAPE)
    assert len(merged.sums) == (1 if where in ("", "0") else 0)
    assert type(twin[0]) is (MergedBranches if where == "" else Block)
    for network in (before, twin):
        network(noise(*SHAPE))
    first, second = (value[0] if isinstance(value, tuple) else value for value in seen[-2:])
    assert difference(first, second) < 1e-12


def test_a_hook_on_a_partial_sum(randomised):
    net = randomised(
        Block(
            lambda s, x: F.relu(s.i(s.a(x) + s.b(x)) + s.c(x)), a=conv(), b=conv(1), c=bn(), i=nn.Identity()
        )
    )
    seen = []
    net.i.register_forward_hook(lambda module, given, out: seen.append(out.clone()))
    before = copy.deepcopy(net).double()
    twin, _ = merged_twin(net, SHAPE)
    assert ran(twin, noise(*SHAPE))[1:3] == (1, 1)
    before(noise(*SHAPE))
    assert difference(seen[-1], seen[-2]) < 1e-12


def test_a_block_that_is_called_twice(randomised):
    block = simple()
    net = randomised(Block(lambda s, x: s.m(s.m(x).relu()), m=block))
    twin, merged = merged_twin(net, SHAPE)
    assert [(s.into, s.batch_norms) for s in merged.sums] == [("m.a#1", ("m.b#1",)), ("m.a#2", ("m.b#2",))]
    assert len(merged.edits) == 1
    assert_same(net, twin, SHAPE, OTHER)


def test_a_block_that_is_registered_twice(randomised):
    block = simple()
    net = randomised(nn.Sequential(block, nn.ReLU(), block))
    twin, merged = merged_twin(net, SHAPE)
    assert len(merged.sums) == 2
    assert twin[0] is twin[2]
    assert_same(net, twin, SHAPE, OTHER)


@pytest.mark.parametrize("whole", [True, False])
def test_a_batch_norm_of_two_blocks(whole, randomised):
    norm = bn()
    forward = (lambda s, x: s.a(x) + s.n(x)) if whole else (lambda s, x: F.relu(s.a(x) + s.n(x)))
    net = randomised(
        nn.Sequential(Block(forward, a=conv(), n=norm), nn.ReLU(), Block(forward, a=conv(1), n=norm))
    )
    twin, merged = merged_twin(net, SHAPE)
    assert [s.batch_norms for s in merged.sums] == [("0.n#1",), ("0.n#2",)]
    assert len(merged.merges) == (2 if whole else 1)  # one zero serves both
    assert ran(twin, noise(*SHAPE))[1] == 0
    assert_same(net, twin, SHAPE, OTHER)


def test_a_batch_norm_that_is_needed_elsewhere_too(randomised):
    norm = bn()
    net = randomised(nn.Sequential(Block(lambda s, x: s.a(x) + s.n(x), a=conv(), n=norm), nn.ReLU(), norm))
    twin, merged = merged_twin(net, SHAPE)
    assert merged.sums == ()
    assert "is also read by 0.n#2:batch_norm.1" in merged.unmerged[0].reason
    assert_same(net, twin, SHAPE, OTHER)


def test_calls_that_would_merge_differently(randomised):
    """The shared batch norm is a branch of one sum, and lends its place to none in the other."""
    norm = bn()
    net = randomised(Block(lambda s, x: F.relu(s.a(x) + s.n(x)) + F.relu(s.n(x.tanh())), a=conv(), n=norm))
    twin, merged = merged_twin(net, SHAPE)
    assert merged.sums == ()
    assert "n is called more than once" in merged.unmerged[0].reason
    assert_same(net, twin, SHAPE, OTHER)


def test_tied_weights_stay_tied(randomised):
    net = nn.Sequential(simple(), nn.ReLU(), simple())
    net[2].b.weight = net[0].b.weight
    net = randomised(net)
    twin, merged = merged_twin(net, SHAPE)
    assert len(merged.sums) == 2  # all of its readers merge
    assert_same(net, twin, SHAPE, OTHER)
    net = nn.Sequential(simple(), nn.ReLU(), bn())
    net[2].weight = net[0].b.weight
    net = randomised(net)
    twin, merged = merged_twin(net, SHAPE)
    assert merged.sums == ()
    assert_same(net, twin, SHAPE, OTHER)


def test_a_batch_norm_in_training_mode_stays():
    net = nn.Sequential(simple()).eval()
    net[0].b.train()
    assert merge_branches(net, SHAPE).sums == ()


def test_buffers_that_the_run_writes_to_are_no_constants(randomised):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(), bn()
            self.register_buffer("gain", torch.ones(1))

        def forward(self, x):
            y = self.a(x) * self.gain + self.b(x)
            self.gain += 1
            return y

    net = randomised(nn.Sequential(Counting()))
    twin, _ = merged_twin(net, SHAPE)
    before = copy.deepcopy(net).double()
    for _ in range(2):
        with torch.no_grad():
            assert difference(before(noise(*SHAPE)), twin(noise(*SHAPE))) < 1e-12


def test_numbers_that_do_not_fit_stay(randomised):
    net = randomised(nn.Sequential(simple())).half()
    with torch.no_grad():
        net[0].b.weight.fill_(60000)
        net[0].b.running_var.fill_(0.01)
    merged = merge_branches(net, SHAPE)
    assert merged.sums == ()
    assert "don't fit into float16" in merged.unmerged[0].reason


def test_parameters_that_share_one_memory(randomised):
    net = randomised(nn.Sequential(simple())).double()
    flat = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    start = 0
    for module in net.modules():
        for name, parameter in list(module._parameters.items()):
            size = parameter.numel()
            module._parameters[name] = nn.Parameter(flat[start : start + size].view(parameter.shape))
            start += size
    before = copy.deepcopy(net)
    merged = merge_branches(net, SHAPE)
    assert len(merged.sums) == 1
    carry_out(net, merged.edits)
    with torch.no_grad():
        assert difference(before(noise(*SHAPE)), net(noise(*SHAPE))) < 1e-12


def test_memory_format_and_gradients_are_kept(randomised):
    net = randomised(nn.Sequential(simple())).to(memory_format=torch.channels_last)
    net[0].a.weight.requires_grad_(False)
    carry_out(net, merge_branches(net, SHAPE).edits)
    assert net[0].a.weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].a.weight.requires_grad
    assert not net.training

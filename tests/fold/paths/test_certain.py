"""What is the same on every path: against folds carried out by hand and run on real inputs of all kinds."""

import copy
import random
import re

import pytest
import torch
from torch import nn

from convscope.fold.paths.certain import Certain
from convscope.fold.paths.paths import recorded_paths

SHAPE = (2, 3, 4, 4)


class Pairs(nn.Module):
    """Convolutions, each with a batch norm, and a forward that is a function of the network and its input."""

    def __init__(self, forward, num=5):
        super().__init__()
        self._forward = forward
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(num))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(num))

    def pair(self, number, x):
        return self.norms[number](self.convs[number](x))

    def forward(self, x):
        return self._forward(self, x)


def verdicts(net, inputs=SHAPE):
    """Why each pair can't be folded, by number; of those that run."""
    certain = Certain(recorded_paths(net, inputs))
    return [certain.why_not(f"convs.{i}", f"norms.{i}") for i in range(len(net.convs))]


def test_a_branch_is_kept_and_what_both_paths_share_is_not():
    def branch(net, x):
        x = net.pair(0, x).relu()
        x = net.pair(1, x) if x.sum() > 0 else net.pair(2, x)
        return net.pair(3, x)

    found = verdicts(Pairs(branch).eval())
    assert found[0] == found[3] == ""
    assert found[1] == "convs.1#1 runs on 1 of the 2 recorded paths"
    assert found[2] == "convs.2#1 runs on 1 of the 2 recorded paths"
    assert found[4] == "convs.4#1 isn't on any path"


def test_on_every_path():
    def branch(net, x):
        return net.pair(1, x) if net.pair(0, x).sum() > 0 else net.convs[1](x)

    everywhere = Certain(recorded_paths(Pairs(branch).eval(), SHAPE)).on_every_path
    assert {"self#1", "convs.0#1", "norms.0#1:batch_norm.1", "convs.1#1:convolution.1"} <= everywhere
    assert not any(address.startswith("norms.1") for address in everywhere)


def leak(net, x):
    y = net.convs[0](x)
    z = net.norms[0](y).relu()
    return z + y if z.sum() > 0 else z


def skipped_norm(net, x):
    y = net.convs[0](x)
    return (net.norms[0](y) if x.sum() > 0 else y).relu()


def other_call(net, x):
    y = net.pair(0, x).relu()
    return net.convs[0](y) if y.sum() > 0 else y


def other_call_of_the_norm(net, x):
    y = net.pair(0, x).relu()
    return net.norms[0](y) if y.sum() > 0 else y


def borrowed_weight(net, x):
    y = net.pair(0, x).relu()
    return y * net.convs[0].weight[0, 0] if y.sum() > 0 else y


def other_output(net, x):
    y = net.convs[0](x)
    z = net.norms[0](y)
    return z, (y if z.sum() > 0 else z)


def kept(net, x):
    y = net.convs[0](x)
    z = net.norms[0](y)
    if z.sum() > 0:
        net.cache = y
    return z


def other_weight(net, x):
    pick = net.convs[0] if x.sum() > 0 else net.convs[1]
    return net.norms[0](torch.conv2d(x, pick.weight, pick.bias))


def other_padding(net, x):
    y = torch.conv2d(x, net.convs[0].weight, padding=1 if x.sum() > 0 else 0)
    return net.norms[0](y)


def watched(net, x):
    y = net.convs[0](x)
    z = net.norms[0](y)
    if z.sum() > 0:
        nn.Module.__call__(net.look, y)
    return z


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (leak, r"what convs.0#1:convolution.1 writes goes to self#1:add.1 on 1 of the 2 recorded paths only"),
        (skipped_norm, r"norms.0#1 runs on 1 of the 2"),
        (other_call, r"parameter convs.0.weight goes to convs.0#2:convolution.1 on 1 of the 2"),
        (other_call_of_the_norm, r"parameter norms.0.weight goes to norms.0#2:batch_norm.1 on 1 of the 2"),
        (borrowed_weight, r"parameter convs.0.weight goes to self#1:select.1 on 1 of the 2"),
        (other_output, r"what convs.0#1:convolution.1 writes goes to output 1 of the network on 1 of the 2"),
        (kept, r"goes to something that keeps it after the run on 1 of the 2"),
        (other_weight, r"convolution.1 (is given parameter convs.1.weight as its weight on one|runs on)"),
        (other_padding, r"is given \(0, 0\) as its padding on one recorded path, \(1, 1\) on another"),
        (watched, r"goes to module call look#1 on 1 of the 2"),
    ],
)
def test_every_other_use_on_some_path_is_a_reason(forward, reason):
    net = Pairs(forward).eval()
    net.look = nn.Identity()
    conv = "self" if forward in (other_weight, other_padding) else "convs.0"
    why = Certain(recorded_paths(net, SHAPE)).why_not(conv, "norms.0")
    assert re.search(reason, why), why


def test_what_code_reads_keeps_what_it_holds():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 1, 4), nn.BatchNorm2d(1)

        def forward(self, x):
            y = self.conv(x)
            y.item()
            return self.norm(y)

    certain = Certain(recorded_paths(Reads().eval(), (1, 3, 4, 4)))
    assert certain.why_not("conv", "norm") == "what conv#1:convolution.1 writes is read by code of self#1"


def test_numbers_leave_only_what_is_over_before_they_are_read():
    def scaled(net, x):
        x = net.pair(0, x).relu()
        y = net.pair(1, x)
        z = y * x.mean().item()
        return net.pair(2, z)

    found = verdicts(Pairs(scaled).eval())
    assert found[:2] == ["", ""]
    assert found[2].startswith("self#1 reads numbers out of tensors, which may decide what runs; paths other")
    assert "can't be ruled out" in found[2]

    def lives_on(net, x):
        y = net.convs[0](x)
        z = net.norms[0](y)
        return z * z.mean().item() + 0 * len(y)

    assert "can't be ruled out" in verdicts(Pairs(lives_on).eval())[0]


def test_without_questions_all_is_certain():
    certain = Certain(recorded_paths(Pairs(lambda net, x: net.pair(0, x)).eval(), SHAPE))
    assert (certain.uncertain, certain.why_not("convs.0", "norms.0")) == ({}, "")


def program(rng, depth=2):
    """A random list of statements over the variables x and y."""
    made = []
    for _ in range(rng.randint(2, 4)):
        kind = rng.choice(["pair"] * 5 + ["split"] * 3 + ["if"] * 3 + ["conv", "norm", "swap", "add", "relu"])
        if kind == "if" and depth:
            condition = rng.choice([lambda x, _: x.sum() > 0, lambda x, y: x.max() > y.max()])
            made.append(("if", condition, program(rng, depth - 1), program(rng, depth - 1)))
        elif kind != "if":
            made.append((kind, rng.randrange(8)))
    return made


def run(net, statements, x, y):
    for kind, *details in statements:
        if kind == "if":
            condition, yes, no = details
            x, y = run(net, yes if condition(x, y) else no, x, y)
        elif kind == "pair":
            x = net.pair(details[0], x)
        elif kind == "split":  # the convolution's output stays within reach
            y = net.convs[details[0]](x)
            x = net.norms[details[0]](y)
        elif kind in ("conv", "norm"):
            x = getattr(net, f"{kind}s")[details[0]](x)
        elif kind == "swap":
            x, y = y, x
        else:
            x = x + y if kind == "add" else x.relu()
    return x, y


def folded_by_hand(net, tape, number):
    """Move norm ``number`` into its convolution, if the first path alone allows it; else None."""
    convs = [call for call in tape.calls if call.address.path == f"convs.{number}"]
    norms = [call for call in tape.calls if call.address.path == f"norms.{number}"]
    norms = [call for call in norms if call.op == "batch_norm"]
    pairs = {call.tensor("input"): call.index for call in norms}
    alone = all(
        [reader.index for reader in tape.consumers(call.output)] == [pairs.get(call.output)]
        and call.output not in tape.outputs
        for call in convs
    )
    if not convs or len(convs) != len(norms) or not alone:
        return None
    twin = copy.deepcopy(net)
    conv, norm = twin.convs[number], twin.norms[number]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        conv.bias.copy_(scale * (conv.bias - norm.running_mean) + norm.bias)
    twin.norms[number] = nn.Identity()
    return twin


def gap(one, other, seed):
    torch.manual_seed(seed)
    x = torch.randn(SHAPE, dtype=torch.float64) * 3 + seed % 5 - 2
    with torch.no_grad():
        return max((a - b).abs().max().item() for a, b in zip(one(x), other(x), strict=True))


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 160), marks=pytest.mark.slow)])
def test_certain_folds_are_right_on_real_inputs_and_others_often_are_not(randomised, seeds):
    """Random programs with branches; each fold that the first path allows is carried out by hand and run."""
    right = wrong = 0
    for seed in seeds:
        statements = program(random.Random(seed))
        net = randomised(Pairs(lambda net, x, s=statements: run(net, s, x, x * 0.5), 8).double())
        paths = recorded_paths(net, torch.zeros(SHAPE, dtype=torch.float64), most=16)
        if not paths.complete or len(paths.recorded) == 1:
            continue
        certain = Certain(paths)
        for number in range(8):
            twin = folded_by_hand(net, paths.tapes[0], number)
            if twin is None:
                continue
            worst = max(gap(net, twin, trial) for trial in range(12))
            if not certain.why_not(*addresses(paths.tapes[0], number)):
                assert worst < 1e-9, (seed, number, statements)
                right += 1
            else:
                wrong += worst > 1e-6
    assert min(right, wrong) >= len(seeds) // 20


def addresses(tape, number):
    paths = (f"convs.{number}", f"norms.{number}")
    return [str(call.address) for call in tape.calls if call.address.path in paths]

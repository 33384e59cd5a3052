"""What the proof takes back of a whole fold, what it leaves, and what it says that it has tried."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold import fold
from fold.nets import IMAGE, Functional, conv


def verdicts(folded):
    return {entry.address.partition("#")[0]: entry.verdict for entry in folded.ledger.entries}


def reasons(folded):
    return {entry.address.partition("#")[0]: entry.reason for entry in folded.ledger.entries}


@pytest.mark.parametrize(("name", "number"), [("weight", 1e-14), ("running_var", 1e30)])
@pytest.mark.parametrize("channels", [slice(None), slice(1)])
def test_batch_norms_that_all_but_vanish_fold(name, number, channels, randomised, relative_error):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)))
    with torch.no_grad():
        getattr(net[1], name)[channels] = number
    folded = fold(net, IMAGE)
    assert verdicts(folded) == {"1": "folded"}
    assert relative_error(net.double(), fold(net.double(), IMAGE).model, 2, 3, 8, 7) < 1e-12


SUMS = {
    "positions": lambda s, x: s.out(s.bn(x).sum((2, 3))),
    "samples": lambda s, x: s.out(s.bn(x).sum(0).mean((1, 2))),
    "before": lambda s, x: s.last(s.conv(x).sum((2, 3))),
    "another behind": lambda s, x: s.behind(s.out(s.bn(x).sum((2, 3)))),
}


@pytest.mark.parametrize("given", [2, 4])
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_what_changes_in_size_pass_scales(name, given, randomised, relative_error):
    layers = {
        "positions": {"bn": nn.BatchNorm2d(3), "out": nn.Linear(3, 2)},
        "samples": {"bn": nn.BatchNorm2d(3), "out": nn.Linear(3, 2)},
        "before": {"conv": conv(), "last": nn.BatchNorm1d(4)},
        "another behind": {"bn": nn.BatchNorm2d(3), "out": nn.Linear(3, 2), "behind": nn.BatchNorm1d(2)},
    }[name]
    net = randomised(Functional(SUMS[name], **layers))
    folded = fold(net, (given, *IMAGE[1:]))
    assert set(verdicts(folded).values()) == {"partial"}
    assert all("with it values differ by" in reason for reason in reasons(folded).values())
    assert relative_error(net, folded.model, 3, 3, 8, 9) < 1e-5


def test_sums_divided_by_what_they_sum_over_pass_shifts_too(randomised):
    net = Functional(
        lambda s, x: s.out(s.bn(x).sum((2, 3)) / (x.shape[2] * x.shape[3])),
        bn=nn.BatchNorm2d(3),
        out=nn.Linear(3, 2),
    )
    assert verdicts(fold(randomised(net), IMAGE)) == {"bn": "folded"}


class Block(nn.Module):
    """Two convolutions with batch norms."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(4, 4), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = conv(4, 4), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.bn1(self.conv1(x)))))

    def second(self, x):
        return self.bn2(self.conv2(x))


class Counting(Block):
    """Its code asks a batch norm for something that nothing else has."""

    def second(self, x):
        return super().second(x) * self.bn2.extra


class Doubling(Block):
    """Its code does something else if the batch norm is of another class, behind where that folds."""

    def second(self, x):
        return super().second(x if type(self.bn1) is nn.BatchNorm2d else 2 * x)


def blocks(kind):
    stem = [conv(), nn.BatchNorm2d(4), nn.ReLU()]
    net = nn.Sequential(*stem, *(cls() for cls in (Block, kind, Block, kind, kind)))
    for block in net:
        if isinstance(block, Counting):
            block.bn2.extra = 1.5
    return net


def test_code_that_a_fold_breaks_costs_that_fold_only(randomised, relative_error):
    net = randomised(blocks(Counting))
    folded = fold(net, IMAGE)
    kept = {path for path, verdict in verdicts(folded).items() if verdict == "kept"}
    assert kept == {"4.bn2", "6.bn2", "7.bn2"}
    assert "the network fails in 4#1 (AttributeError: " in reasons(folded)["4.bn2"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-5


def test_wrong_values_behind_a_right_one_cost_what_is_around_them(randomised, relative_error):
    net = randomised(blocks(Doubling))
    folded = fold(net, IMAGE)
    kept = {path for path, verdict in verdicts(folded).items() if verdict != "folded"}
    assert {"4.bn1", "6.bn1", "7.bn1"} <= kept <= {f"{i}.bn{k}" for i in (4, 6, 7) for k in (1, 2)}
    assert relative_error(net, folded.model, *IMAGE) < 1e-5


def test_a_fold_that_lets_the_network_write_to_its_inputs_is_taken_back(randomised):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
            self.bn2 = nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.bn(x)
            return self.bn2(self.conv(y if type(self.bn) is nn.BatchNorm2d else y.mul_(1)))

    folded = fold(randomised(Net()), IMAGE)
    assert verdicts(folded) == {"bn": "kept", "bn2": "folded"}
    assert "with it the network writes to its inputs" in reasons(folded)["bn"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_writes_to_its_inputs_anyway(dtype, randomised):
    net = Functional(lambda s, x: s.bn(s.conv(x.mul_(2))), conv=conv(), bn=nn.BatchNorm2d(4))
    x = torch.randn(IMAGE, dtype=dtype)
    before = copy.deepcopy(x)
    folded = fold(randomised(net).to(dtype), x)
    assert verdicts(folded) == {"bn": "folded"}
    assert torch.equal(x, before)


def test_other_shapes_are_told_in_words(randomised):
    class Strange(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            return y if isinstance(self[1], nn.BatchNorm2d) else y[..., :2]

    folded = fold(randomised(Strange(conv(), nn.BatchNorm2d(4))), IMAGE)
    assert (
        reasons(folded)["1"]
        == "taken back: with it a value has another shape, isn't finite, or isn't computed"
    )


def test_the_proof_says_what_was_tried(randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    proof = fold(net, torch.randn(IMAGE)).proof
    assert proof.trials == (
        "(2, 3, 6, 5) given",
        "(2, 3, 6, 5) random",
        "(2, 3, 10, 9) other size",
        "(5, 3, 6, 5) other number",
    )
    assert (
        "on the inputs given, on random ones of their shape, on ones of another size and on" in proof.method
    )


def test_the_proof_says_what_could_not_be_tried(randomised):
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(120, 2))
    proof = fold(randomised(net), IMAGE).proof
    assert proof.trials == (
        "(2, 3, 6, 5) random",
        "(2, 3, 6, 5) random again",
        "(5, 3, 6, 5) other number",
    )
    assert "ones of another size" not in proof.method
    assert "no other size: the network doesn't take one" in proof.method


def test_the_proof_says_that_a_fold_holds_for_one_size(randomised):
    net = randomised(nn.Sequential(nn.BatchNorm2d(3), conv()))
    proof = fold(net, IMAGE, border="map").proof
    assert len(proof.trials) == 3
    assert "no other size: it is folded for one" in proof.method


def test_nothing_folded_needs_no_proof():
    proof = fold(nn.Sequential(conv()).eval(), IMAGE).proof
    assert (proof.passed, proof.trials, proof.method) == (True, (), "none needed: nothing was folded")


@pytest.mark.parametrize(
    ("network", "inputs", "said"),
    [
        (nn.Conv2d, IMAGE, "the class Conv2d as the network"),
        (nn.Conv2d(3, 4, 3).state_dict(), IMAGE, "a dict of 2 entries as the network"),
        ("resnet18", IMAGE, "'resnet18' as the network"),
        (nn.Conv2d(3, 4, 3).eval(), list(IMAGE), "pass (2, 3, 6, 5)"),
        (nn.Conv2d(3, 4, 3).eval(), 5, "inputs of type int"),
    ],
)
def test_what_is_no_network_or_no_input_is_named(network, inputs, said):
    with pytest.raises(ConvscopeError) as error:
        fold(network, inputs)
    assert said in str(error.value)
    assert "\n" not in str(error.value)

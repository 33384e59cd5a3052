import copy
import gc
import pickle
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

import convscope as cs
from cases import CheckpointedNet, ResidualNet, state_of
from convscope.probe.events import listening
from convscope.probe.passes import ForwardPass
from convscope.probe.surroundings import tensors_in

NORMS = (_BatchNorm,)


class Diary:
    """Writes events down as text."""

    def __init__(self):
        self.lines = []

    def begins(self, run):
        mode = "train" if run.training else "eval"
        marks = [
            mark
            for mark, is_there in (
                ("no-grad", not run.has_gradients),
                ("again", run.recomputed),
                ("checkpoint", run.will_be_recomputed),
                ("input", run.input_trains),
            )
            if is_there
        ]
        self.lines.append(" ".join(["begin", run.path, mode, *marks]))

    def ends(self, run):
        assert run.inputs == ()
        self.lines.append(f"end {run.path}")

    def layer_begins(self, call):
        pass

    def layer_ends(self, call, output):
        self.lines.append(f"layer {call.path}" + (" again" if call.recomputed else ""))

    def reached(self, run, gradient, backward):
        assert not gradient.requires_grad
        self.lines.append(f"reached {run.path}")

    def differentiated(self, run):
        self.lines.append(f"differentiated {run.path}")

    def step_begins(self, optimizer):
        self.lines.append("step")

    def step_ends(self, optimizer):
        self.lines.append("stepped")

    def told(self):
        lines, self.lines = self.lines, []
        return lines


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


def images():
    return torch.randn(4, 3, 5, 5)


def test_a_step():
    net, diary = small(), Diary()
    optimizer = SGD(net.parameters(), 0.1)
    with listening(net, [optimizer], NORMS, diary):
        net(images()).sum().backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            net(images())
    assert diary.told() == [
        "begin self train", "layer 1", "end self", "reached self", "step", "stepped",
        "begin self eval no-grad", "layer 1", "end self",
    ]  # fmt: skip


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation(reentrant):
    net, diary = CheckpointedNet(reentrant), Diary()
    with listening(net, [], NORMS, diary):
        net(images()).sum().backward()
    assert diary.told() == [
        "begin self train", "layer block.1", "end self", "reached self",
        "begin block train again input", "layer block.1 again", "end block",
    ]  # fmt: skip


def test_a_checkpoint_around_the_whole_network():
    net, diary = small(), Diary()
    with listening(net, [], NORMS, diary):
        checkpoint(net, images().requires_grad_(), use_reentrant=True).sum().backward()
        assert diary.told() == [
            "begin self train no-grad checkpoint input", "layer 1", "end self",
            "begin self train again input", "layer 1 again", "end self",
        ]  # fmt: skip
        with torch.no_grad():
            net(images())
    assert diary.told()[0] == "begin self train no-grad"


def test_second_derivatives():
    net, diary = small(), Diary()
    with listening(net, [], NORMS, diary):
        x = images().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        diary.told()
        slope.sum().backward()
        assert set(diary.told()) <= {"reached self"}
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    assert diary.told() == [
        "begin self train input",
        "layer 1",
        "end self",
        "reached self",
        "differentiated self",
    ]


def test_parts_that_are_called_on_their_own():
    net, diary = ResidualNet(), Diary()
    with listening(net, [], NORMS, diary):
        net.stem(torch.randn(2, 3, 9, 9))
        net.bn1(torch.randn(2, 8, 3, 3))
        net.head(torch.randn(2, 8))  # holds no batch norm
    assert diary.told() == [
        "begin stem train", "layer stem.1", "end stem", "begin bn1 train", "layer bn1", "end bn1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "passes"),
    [
        (lambda net, x: None, 1),
        (lambda net, x: net.bn1(torch.randn(2, 8, 3, 3)), 2),  # a layer comes twice
        (lambda net, x: x.sum().backward(), 2),
        (lambda net, x: net(torch.randn(2, 3, 9, 9)), 3),
        (lambda net, x: net.eval(), 2),
    ],
)
def test_parts_that_follow_one_another_are_one_pass(between, passes):
    net, numbers = ResidualNet(), []

    class Numbers(Diary):
        def begins(self, run):
            numbers.append(run.number)

    with listening(net, [], NORMS, Numbers()):
        x = net.stem(torch.randn(2, 3, 9, 9))
        net.bn1(torch.randn(2, 8, 3, 3))
        between(net, x)
        net.bn2(torch.randn(2, 8, 3, 3))
    assert len(set(numbers)) == passes
    assert numbers == sorted(numbers)


def test_inputs_that_are_differentiated_begin_a_pass():
    net, diary = nn.ModuleList([small()[:2], nn.BatchNorm2d(4)]), Diary()
    with listening(net, [], NORMS, diary):
        z = net[0](images()).detach().requires_grad_()
        torch.autograd.grad(net[1](z).square().sum(), z, create_graph=True)
    assert [line for line in diary.told() if not line.startswith("layer")] == [
        "begin 0 train", "end 0", "begin 1 train input", "end 1", "reached 1", "differentiated 1",
    ]  # fmt: skip


def test_gradients_of_parameters_are_none_of_inputs():
    net, diary = small(), Diary()
    with listening(net, [], NORMS, diary):
        x = images().requires_grad_()
        torch.autograd.grad(net(x).square().sum(), list(net.parameters()), create_graph=True)
    assert "reached self" in diary.told()
    assert "differentiated self" not in diary.told()
    assert not x._backward_hooks


def test_a_network_that_fails_in_the_middle():
    net, diary = small(), Diary()
    with listening(net, [], NORMS, diary):
        with pytest.raises(RuntimeError):
            net(torch.randn(4, 2, 5, 5))
        net(images())
    assert diary.told() == ["begin self train", "end self", "begin self train", "layer 1", "end self"]


class Interrupting(nn.Module):
    def forward(self, x):
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_open():
    net, diary = nn.Sequential(nn.BatchNorm2d(3), Interrupting()), Diary()
    with listening(net, [], NORMS, diary):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                net(images())
    assert diary.told() == ["begin self train", "layer 0"] * 2


def test_an_interrupt_in_a_part_leaves_nothing_open():
    net = nn.ModuleDict({"one": nn.Sequential(nn.BatchNorm2d(3), Interrupting()), "two": nn.BatchNorm2d(3)})
    diary = Diary()
    with listening(net, [], NORMS, diary):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                net["one"](images())
        net["two"](images())
    interrupted = ["begin one train", "layer one.0"]
    assert diary.told() == [*interrupted, *interrupted, "begin two train", "layer two", "end two"]


class Borrowing(nn.Module):
    """Runs a module that it holds no part of."""

    def __init__(self, other):
        super().__init__()
        self.bn, self.others = nn.BatchNorm2d(3), [other]

    def forward(self, x):
        return self.bn(self.others[0](x))


def test_a_module_that_runs_within_another_one_is_part_of_its_pass():
    net = nn.ModuleDict({"other": nn.Sequential(nn.BatchNorm2d(3))})
    net["borrower"] = Borrowing(net["other"])
    diary = Diary()
    with listening(net, [], NORMS, diary):
        net["borrower"](images())
    assert diary.told() == ["begin borrower train", "layer other.0", "layer borrower.bn", "end borrower"]


@pytest.mark.parametrize("compiled", ["part", "in place", "copy", "foreign"])
def test_compiled_code_runs_as_without_us(compiled):
    torch._dynamo.reset()
    torch.manual_seed(0)
    net, other, diary, x = nn.Sequential(small(), small()[1:2]), small(), Diary(), torch.randn(4, 3, 5, 5)
    net[1] = nn.Identity()
    run = net
    if compiled == "part":
        net[0] = torch.compile(net[0], backend="eager")
    elif compiled == "in place":
        net[0].compile(backend="eager")
    elif compiled == "copy":
        run = torch.compile(net, backend="eager")
    else:
        run = torch.compile(other, backend="eager")
    expected = copy.deepcopy(other if compiled == "foreign" else net)(x)
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with listening(net, [], NORMS, diary) as hearing:
            torch.testing.assert_close(run(x), expected)
            run(x).sum().backward()
        assert len(warnings.filters) == len(filters) + 1
    assert hearing.ended_by is None
    assert [str(one.message) for one in told if "global hooks" in str(one.message)] == []
    assert not any(line.startswith("layer") for line in diary.told())


@dataclass
class Output:
    logits: torch.Tensor
    others: dict


class Wrapping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return Output(self.net(x), {})


def test_outputs_in_an_object():
    net, diary = Wrapping(), Diary()
    with listening(net, [], NORMS, diary):
        net(images()).logits.sum().backward()
    assert "reached self" in diary.told()
    assert [tensor.tolist() for tensor in tensors_in([1, {"a": (torch.ones(2),)}])] == [[1, 1]]


def test_the_network_carries_no_trace():
    net, diary, x = small(), Diary(), images()
    before = state_of(net)
    with listening(net, [], NORMS, diary):
        assert state_of(net) == before
        copied, reloaded = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        copied(x), reloaded(x)
        assert diary.told() == []
    assert state_of(net) == before


def test_everything_is_gone_afterwards_also_after_an_exception():
    net = small()
    optimizer = SGD(net.parameters(), 0.1)
    hooks = nn.modules.module
    with pytest.raises(ValueError, match="mine"), listening(net, [optimizer], NORMS, Diary()):
        kept = net(images())
        assert kept._backward_hooks
        raise ValueError("mine")
    assert not kept._backward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
    assert not hooks._global_forward_hooks_always_called


def test_many_outputs_dont_pile_up():
    net = small()
    with listening(net, [], NORMS, Diary()):
        for _ in range(600):
            net(images())
        assert sum(type(thing) is ForwardPass for thing in gc.get_objects()) < 300


def test_layers_that_are_replaced_and_layers_of_others():
    net, other, diary = small(), small(), Diary()
    with listening(net, [], NORMS, diary):
        net[1] = nn.BatchNorm2d(4)
        other(images())
        net(images())
    assert diary.told() == ["begin self train", "layer 1", "end self"]


def test_our_own_runs_are_no_events():
    net, diary = small(), Diary()
    with listening(net, [], NORMS, diary):
        cs.checkup(net, torch.randn(8, 3, 5, 5))
        cs.record(net, (2, 3, 5, 5))
        cs.norm.recalibrate(net, [torch.randn(8, 3, 5, 5)])
        assert diary.told() == []
        net(images())
        assert len(diary.told()) == 3


def test_two_listeners():
    net, first, second = small(), Diary(), Diary()
    with listening(net, [], NORMS, first):
        with listening(net, [], NORMS, second):
            net(images())
        net(images())
    assert len(first.told()) == 6
    assert len(second.told()) == 3

"""Numbers that a network holds, and constants of its code, are no questions: they are answered truly."""

import pytest
import torch
from torch import nn

from convscope.tape import TrainingPlan, record

TOLD = []


class Reads(nn.Module):
    """Appends what ``read(self, x)`` returns to ``TOLD``, which no recording puts back."""

    def __init__(self, read):
        super().__init__()
        self._read = read
        self.scale = nn.Parameter(torch.tensor([0.5, -7.0]))
        self.register_buffer("ready", torch.tensor(True))
        self.plain, self.number = torch.tensor([4, 5]), torch.tensor([5])

    def forward(self, x):
        TOLD.append(self._read(self, x))
        return x * self.scale.sum()


@pytest.mark.parametrize(
    ("read", "number"),
    [
        (lambda net, _: bool(net.ready), True),
        (lambda net, _: net.scale[1].item(), -7.0),
        (lambda net, _: net.scale.detach()[0].item(), 0.5),
        (lambda net, _: net.number.item(), 5),
        (lambda net, _: net.plain.sum().item(), None),
        (lambda net, x: int(torch.tensor(x.shape[0]) * 10), 20),
        (lambda net, _: torch.tensor(2.5).item(), 2.5),
    ],
)
def test_held_numbers_are_answered(read, number):
    TOLD.clear()
    tape = record(Reads(read), (2, 3))
    if number is None:  # computed in the run: not held by anyone
        assert tape.questions
    else:
        assert (TOLD, tape.questions, tape.assumptions) == ([number], (), ())
    TOLD.clear()
    record(Reads(read), (2, 3), real=True)
    (told,) = TOLD
    assert told == (9 if number is None else number)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.ready.logical_not_(),
        lambda net: net.ready.copy_(net.scale.sum() > 0),
        lambda net: net.ready.view(1)[0].fill_(False),
    ],
)
def test_what_the_step_writes_to_is_not_known(change):
    def read(net, _):
        change(net)
        return bool(net.ready)

    tape = record(Reads(read), (2, 3))
    assert [question.source for question in tape.questions] == ["assumed"]


def test_a_tied_or_shared_storage_is_read_at_its_offset():
    net = Reads(lambda net, _: net.part[1].item())
    whole = torch.tensor([1.0, 2.0, 3.0, 4.0])
    net.register_buffer("whole", whole)
    net.register_buffer("part", whole[2:])
    TOLD.clear()
    assert record(net, (2, 3)).questions == ()
    assert TOLD == [4.0]


def test_networks_on_the_meta_device_hold_no_numbers():
    with torch.device("meta"):
        net = Reads(lambda net, _: bool(net.ready))
    assert [question.answer for question in record(net, (2, 3)).questions] == [False]


@pytest.mark.parametrize("plan", [TrainingPlan(precision="bf16"), TrainingPlan(channels_last=True)])
def test_a_plan_that_changes_dtype_or_layout_does_not_make_numbers_wrong(plan):
    net = Reads(lambda net, _: (net.scale[1].item(), net.kernel[1, 0, 0, 1].item()))
    net.register_buffer("kernel", torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).view(2, 2, 1, 2))
    TOLD.clear()
    tape = record(net, (2, 3, 1, 2), plan)
    if plan.channels_last:  # elements lie elsewhere than in the network: not looked up
        assert ([question.answer for question in tape.questions], TOLD) == ([1.0], [(-7.0, 1.0)])
    else:
        assert (tape.questions, TOLD) == ((), [(-7.0, 6.0)])

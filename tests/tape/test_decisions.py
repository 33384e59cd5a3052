"""What a network's code reads out of its tensors is written down, and can be answered otherwise."""

import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record
from convscope.tape.decisions import Decisions


class Code(nn.Module):
    """A network whose forward is a function of itself and its input."""

    def __init__(self, forward):
        super().__init__()
        self._forward = forward
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self._forward(self, x)


def ops(tape):
    return [call.op for call in tape.calls]


def gated(net, x):
    y = net.conv(x)
    if y.sum() > 0:
        y = y.relu()
        if y.max() > 1:
            y = y.tanh()
    return y


SHAPE = (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("answers", "last"),
    [((), "gt"), ((False,), "gt"), ((True,), "gt"), ((True, True), "tanh"), ((None,), "gt")],
)
def test_the_answers_decide_which_path_is_recorded(answers, last):
    decisions = Decisions(answers)
    tape = record(Code(gated), SHAPE, decisions=decisions)
    assert ops(tape)[-1] == last
    assert ("relu" in ops(tape)) == (answers[:1] == (True,))
    assert tape.questions == tuple(decisions.asked)
    assert decisions.num_calls == len(tape.calls)


def test_a_question_says_where_what_and_when():
    tape = record(nn.Sequential(Code(gated)), SHAPE, decisions=Decisions((True,)))
    first, second = tape.questions
    assert (first.where, first.dtype, first.answer, first.source) == ("0#1", torch.bool, True, "given")
    assert (second.answer, second.source) == (False, "assumed")
    assert [tape.producer(question.values[0]).op for question in tape.questions] == ["gt", "gt"]
    assert [tape.calls[question.num_calls - 1].op for question in tape.questions] == ["gt", "gt"]
    sentence = "0#1 reads a number out of a tensor (.item()); {} was assumed"
    assert tape.assumptions == (sentence.format("True"), sentence.format("False"))


def test_numbers_are_answered_in_the_tensors_own_kind():
    told = []

    def reads(net, x):
        told.extend((x.sum().item(), x.argmax().item(), int(x.sum()), bool((x > 0).any()), float(x.max())))
        return x

    record(Code(reads), SHAPE, decisions=Decisions((3, 7.0, 2.5, 1)))
    assert told == [3.0, 7, 2, True, 1.0]
    assert [type(number) for number in told] == [float, int, int, bool, float]


@pytest.mark.parametrize("function", [torch.equal, torch.allclose])
def test_comparisons_are_questions_too(function):
    def compares(net, x):
        return x.relu() if function(x, x * 2) else x.tanh()

    simulated = record(Code(compares), SHAPE)
    turned = record(Code(compares), SHAPE, decisions=Decisions((True,)))
    assert [ops(simulated)[-1], ops(turned)[-1]] == ["tanh", "relu"]
    (question,) = simulated.questions
    assert (question.op, question.is_boolean, len(question.values)) == (function.__name__, True, 2)
    assert simulated.assumptions == (
        f"self#1 compares two tensors (torch.{function.__name__}); False was assumed",
    )
    zeros = record(Code(compares), torch.zeros(SHAPE), real=True)
    assert [str(c.address) for c in zeros.calls] == [str(c.address) for c in turned.calls]


def test_a_real_run_tells_what_the_data_said_and_assumes_nothing():
    x = torch.full(SHAPE, 2.0)
    tape = record(Code(lambda _, x: x.relu() if x.sum() > 0 else x), x, real=True)
    assert ops(tape)[-1] == "relu"
    assert [(q.answer, q.source) for q in tape.questions] == [(True, "data")]
    assert tape.assumptions == ()
    turned = record(Code(gated), x, real=True, decisions=Decisions((True, None)))
    assert "relu" in ops(turned)


def test_a_number_read_twice_is_assumed_once_in_words_and_twice_in_the_list():
    tape = record(Code(lambda _, x: x * x.sum().item() * x.max().item()), SHAPE)
    assert len(tape.questions) == 2
    assert len(tape.assumptions) == 1


def test_a_loop_that_waits_for_true_is_broken_off():
    def waits(net, x):
        while not x.norm() < 1:
            x = x / 2
        return x

    model = Code(waits)
    before = state_of(model)
    decisions = Decisions(most=50)
    with pytest.raises(ConvscopeError, match=r"^self#1 reads numbers .* 50 others.*Decisions\(\(True,\)\)"):
        record(model, SHAPE, decisions=decisions)
    assert (len(decisions.asked), decisions.num_calls) == (50, 50 * 3 + 2)
    assert state_of(model) == before
    halved = record(model, SHAPE, decisions=Decisions((False, False, True)))
    assert ops(halved).count("div") == 2


def test_what_was_asked_is_known_after_a_failure_and_forgotten_by_the_next_recording():
    def fails(net, x):
        assert x.isfinite().all()
        return x

    decisions = Decisions()
    with pytest.raises(ConvscopeError, match="fails in self#1"):
        record(Code(fails), SHAPE, decisions=decisions)
    assert [question.answer for question in decisions.asked] == [False]
    record(nn.Conv2d(3, 4, 3), SHAPE, decisions=decisions)
    assert (decisions.asked, decisions.num_calls) == ([], 1)


def test_answers_that_nobody_asked_for_are_refused():
    with pytest.raises(ConvscopeError, match="2 answers to a network that asks 1 questions"):
        record(Code(lambda _, x: x.relu() if x.sum() > 0 else x), SHAPE, decisions=Decisions((True, True)))
    with pytest.raises(ConvscopeError, match=r"decisions=\(True,\)"):
        record(Code(gated), SHAPE, decisions=(True,))


def test_a_training_step_asks_in_order_and_leaves_counters_alone():
    model = nn.Sequential(Code(gated), nn.BatchNorm2d(4, momentum=None))
    tape = record(model, SHAPE, TrainingPlan("adamw"), decisions=Decisions((True,)))
    assert [(question.where, question.dtype, question.answer) for question in tape.questions] == [
        ("0#1", torch.bool, True),
        ("0#1", torch.bool, False),
        ("1#1", torch.int64, 1),
    ]


def test_networks_without_questions_ask_none():
    assert record(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), SHAPE).questions == ()

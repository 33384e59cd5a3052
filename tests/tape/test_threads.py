"""Recording while another thread computes: neither fails, and the other's numbers are its own."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.tape import TrainingPlan, record


class _Elsewhere(threading.Thread):
    """Repeats a computation, and keeps the first thing that goes wrong."""

    def __init__(self, compute):
        super().__init__()
        self.compute, self.error, self.rounds, self.over = compute, None, 0, False

    def run(self):
        try:
            while not self.over:
                self.compute()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.join()
        if self.error is not None:
            raise self.error


def _attention_by_hand(q, k, v):
    scores = [[sum(a * b for a, b in zip(row, key)) / len(row) ** 0.5 for key in k] for row in q]
    weights = torch.tensor(scores).exp()
    return weights / weights.sum(1, keepdim=True) @ torch.tensor(v)


class _Computation:
    """Dropout, softmax, attention and backward, whose results are known without PyTorch's operators."""

    def __init__(self):
        self.linear = nn.Linear(4, 4)
        self.x = torch.linspace(-1, 1, 8).view(2, 4)
        self.q, self.k, self.v = torch.rand(3, 1, 1, 3, 4).requires_grad_()
        self.attended = _attention_by_hand(*(t[0, 0].tolist() for t in (self.q, self.k, self.v)))

    def __call__(self):
        dropped = F.dropout(self.x, 0.5, True)
        assert all(b in (0, 2 * a) for a, b in zip(self.x.view(-1).tolist(), dropped.view(-1).tolist()))
        softmax = F.dropout(self.linear(self.x), 0.5, True).softmax(1)
        torch.testing.assert_close(softmax.sum(1), torch.ones(2))
        self.linear.zero_grad()
        softmax.sum().backward()
        # Rows of a softmax always add up to one: no weight has any influence.
        torch.testing.assert_close(self.linear.weight.grad, torch.zeros(4, 4))
        attended = F.scaled_dot_product_attention(self.q, self.k, self.v)
        torch.testing.assert_close(attended[0, 0], self.attended)
        (gradient,) = torch.autograd.grad(attended.sum(), self.v)
        torch.testing.assert_close(gradient.sum(), torch.tensor(12.0))
        assert F.softmax(self.x.half(), 1, dtype=torch.float32).dtype is torch.float32


def _step(x):
    return F.dropout(x, 0.5).softmax(1).sum()


@pytest.mark.slow
def test_plain_recordings_leave_other_threads_alone():
    plan = TrainingPlan(loss=_step)
    with _Elsewhere(_Computation()) as thread:
        for _ in range(300):
            tape = record(nn.Linear(4, 4), (2, 4), plan)
            assert "native_dropout" in {call.op for call in tape.calls}
    assert thread.rounds > 300


def _dtypes_under_the_cpus_autocast():
    x = torch.ones(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.T
        # A list of the CPU's alone; in none of its lists, but in CUDA's; in both of them.
        pooled = F.avg_pool3d(y.view(1, 2, 2, 1).bfloat16(), 1)
        made = (y, pooled, y.softmax(1), y.exp(), y.sum(), F.mse_loss(y, y))
    float32, half = torch.float32, torch.bfloat16
    assert [t.dtype for t in made] == [half, float32, half, half, half, float32]
    torch.testing.assert_close(y.float(), torch.full((2, 2), 4.0))


@pytest.mark.slow
def test_mixed_precision_recordings_leave_other_threads_alone():
    plan = TrainingPlan(precision="amp-fp16", loss=_step)
    record(nn.Linear(4, 4), (2, 4), plan)  # the first one makes entries in the dispatcher
    with _Elsewhere(_Computation()) as plain, _Elsewhere(_dtypes_under_the_cpus_autocast) as casting:
        for _ in range(300):
            tape = record(nn.Linear(4, 4), (2, 4), plan)
            assert torch.float16 in {value.dtype for value in tape.values}
    assert min(plain.rounds, casting.rounds) > 100

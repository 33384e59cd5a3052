"""What is said when a step really runs and fails, by whichever way it is run."""

import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.cost.measured import cpu_truth
from convscope.cost.measured.real_step import real_step
from convscope.cost.measured.timing import measure
from convscope.cost.measured.verification import verify
from convscope.tape import TrainingPlan


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.last = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


class OnlySimulated(nn.Module):
    """Runs on simulated tensors alone, as one that looks for a device or a file of its own might."""

    def __init__(self, error):
        super().__init__()
        self.inner, self.error = nn.Linear(8, 4), error
        self.inner.register_forward_hook(lambda *_: None)

    def forward(self, x):
        y = self.inner(x)
        if not isinstance(y, torch._subclasses.FakeTensor):
            raise self.error
        return y


RUNS = {
    "measure": lambda net, shape, plan: measure(net, shape, plan, repeats=2),
    "cpu_truth": cpu_truth.measure,
    "verify": lambda net, shape, plan: verify(net, shape, plan, device="cpu"),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_network_that_fails_only_for_real(run):
    net = nn.Sequential(nn.Linear(8, 8), OnlySimulated(IndexError("no such file\nand more")))
    before = state_of(net)
    with pytest.raises(ConvscopeError) as refused:
        run(net, (2, 8), TrainingPlan())
    assert str(refused.value).startswith(
        "a real step on cpu fails in forward, at 1 (IndexError: no such file); expected"
    )
    assert isinstance(refused.value.__cause__, IndexError)
    assert state_of(net) == before


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_interruptions_pass_through(run):
    with pytest.raises(KeyboardInterrupt):
        run(OnlySimulated(KeyboardInterrupt()), (2, 8), None)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_networks_own_words_pass_through(run):
    said = ConvscopeError("this", "that", "do so")
    with pytest.raises(ConvscopeError, match=r"^this; expected that; do so$"):
        run(OnlySimulated(said), (2, 8), None)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_step_that_does_not_fit(error):  # fmt: skip
    with pytest.raises(ConvscopeError, match=r"expected memory for a step .*; take a smaller batch$"):
        cpu_truth.measure(OnlySimulated(error), (2, 8), None)


def test_inputs_that_do_not_fit():
    """4 PiB of them, more than processors can address in a process; nothing is taken."""
    with pytest.raises(ConvscopeError, match=r"fails in preparation \(.*; take a smaller batch$"):
        cpu_truth.measure(nn.ReLU(), (2**20, 2**30), None)


@pytest.mark.parametrize("phase", ["loss", "backward"])
def test_the_phase_is_named(phase):
    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise ValueError("not for me")

    def loss(outputs):
        if phase == "loss":
            raise ValueError("not for me")
        return Raises.apply(outputs).sum()

    plan = TrainingPlan(loss=loss)
    with (
        pytest.raises(ConvscopeError, match=f"fails in {phase} \\(ValueError: not for me\\)"),
        real_step(nn.Linear(8, 4), (2, 8), plan) as step,
    ):
        step.run()


def test_another_precision_is_advised():
    with pytest.raises(ConvscopeError, match="try another precision than amp-bf16, such as fp32"):
        cpu_truth.measure(
            OnlySimulated(RuntimeError("no kernel")), (2, 8), TrainingPlan(precision="amp-bf16")
        )


def test_an_lstm_under_autocast_says_more_than_a_traceback():
    """oneDNN's LSTM has no half precision on some processors; on others it runs."""
    try:
        verify(Recurrent(), (2, 5, 8), TrainingPlan(precision="amp-fp16"), device="cpu")
    except ConvscopeError as error:
        assert "fails in forward, at lstm (" in str(error)  # noqa: PT017 - either is right

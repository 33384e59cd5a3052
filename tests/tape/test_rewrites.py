"""What CUDA does differently: dropout and softmax, against CUDA's documented operators."""

import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope.tape import TrainingPlan, record
from convscope.tape.rewrites import DeviceRewrites
from dispatched import DispatchedNames


def _saved_bytes(tape, op):
    """Bytes of the storages that the calls of an operator keep for backward and that they made."""
    calls = [call for call in tape.calls if call.op == op]
    kept = {tape.values[value].storage for call in calls for value in call.saved}
    return sum(
        tape.storages[index].nbytes
        for index in kept
        if tape.storages[index].birth in {c.index for c in calls}
    )


class Scaled(nn.Module):
    """A weight, and a function of the product with it."""

    def __init__(self, function):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.ones(4)), function

    def forward(self, x):
        return self.function(x * self.weight)


DROPOUTS = [
    lambda x: F.dropout(x, 0.5),
    lambda x: torch.dropout(x, 0.5, True),
    lambda x: nn.Dropout(0.3)(x),
    lambda x: F.multi_head_attention_forward(
        x, x, x, 4, 2, torch.ones(12, 4), None, None, None, False, 0.5, torch.ones(4, 4), None
    )[0],
]


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return checkpoint(lambda y: F.dropout(y, 0.5), x, use_reentrant=self.reentrant)


DROPOUTS += [
    lambda x: torch.ops.aten.dropout(x, 0.5, train=True),
    lambda x: nn.LSTM(4, 4, 2, dropout=0.5)(x)[0],
    lambda x: nn.GRU(4, 4, 2, dropout=0.5, bidirectional=True, batch_first=True)(x)[0],
]


@pytest.mark.parametrize("backward", [torch.Tensor.backward, torch.autograd.backward])
@pytest.mark.parametrize("reentrant", [False, True])
def test_dropout_of_checkpointed_blocks_is_fused_again_in_backward(reentrant, backward):
    network = nn.Sequential(Scaled(torch.relu), Checkpointed(reentrant)).train()
    tape = record(network, (5, 4), step=lambda model, args, _: backward(model(*args).sum()))
    assert [call.phase for call in tape.calls if call.op == "native_dropout"] == ["forward", "recompute"]
    assert "bernoulli_" not in {call.op for call in tape.calls}


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_dropout_keeps_a_mask_of_one_byte_an_element(dropout):
    tape = record(Scaled(dropout), (5, 3, 4), TrainingPlan(loss=lambda y: y.sum()))
    masks = [tape.values[call.outputs[1]] for call in tape.calls if call.op == "native_dropout"]
    assert [value.dtype for value in masks] == [torch.bool]
    assert "bernoulli_" not in {call.op for call in tape.calls}


@pytest.mark.parametrize(
    "dropout",
    [
        lambda x: F.dropout(x, 0.5, inplace=True),
        lambda x: F.dropout2d(x, 0.5),
        lambda x: F.alpha_dropout(x, 0.5, training=True),
    ],
)
def test_other_dropouts_consist_of_the_same_operators_on_both_devices(dropout):
    # ATen/native/Dropout.cpp: only `dropout` itself has a fused kernel.
    plan = TrainingPlan(loss=lambda y: y.sum())
    cuda, cpu = (record(Scaled(dropout), (5, 3, 2, 4), plan, device=device) for device in ("cuda", "cpu"))
    assert [call.op for call in cuda.calls] == [call.op for call in cpu.calls]
    assert "bernoulli_" in {call.op for call in cuda.calls}


@pytest.mark.parametrize("dropout", [lambda x: F.dropout(x, 0.5, False), lambda x: F.dropout(x, 0.0)])
def test_dropout_without_effect_is_no_operator_on_cuda_either(dropout):
    tape = record(Scaled(dropout), (5, 4), TrainingPlan(loss=lambda y: y.sum()))
    assert [call.op for call in tape.in_phase("forward")] == ["mul"]


def test_silu_in_place_clones_what_its_gradient_needs_on_both_devices():
    # torch/csrc/autograd saves a copy of an input that an in-place operator overwrites, whatever the device.
    plan = TrainingPlan(loss=lambda y: y.sum())
    for device in ("cuda", "cpu"):
        tape = record(Scaled(lambda x: F.silu(x, inplace=True)), (5, 4), plan, device=device)
        assert [call.op for call in tape.in_phase("forward")] == ["mul", "clone", "silu_"]


WIDENED = [
    lambda x: x.softmax(1, torch.float32),
    lambda x: torch.softmax(input=x, dim=1, dtype=torch.float32),
    lambda x: torch.special.softmax(x, 1, dtype=torch.float32),
    lambda x: torch.ops.aten.softmax(x, 1, torch.float32),
    lambda x: F.softmin(x, 1, dtype=torch.float32),
]


@pytest.mark.parametrize("precision", ["fp32", "amp-fp16"])
@pytest.mark.parametrize("function", WIDENED)
def test_however_softmax_is_called(function, precision):
    plan = TrainingPlan(precision=precision, loss=lambda y: y.sum())
    tape = record(Scaled(lambda x: function(x.half())), (5, 4), plan)
    (call,) = (call for call in tape.calls if call.op == "_softmax")
    assert call.arguments["half_to_float"] is True


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_float16_under_autocast_is_fused(name):
    # Autocast asks for float32 itself.
    plan = TrainingPlan(precision="amp-fp16", loss=lambda y: y.sum())
    tape = record(Scaled(lambda x: getattr(x.half(), name)(1)), (5, 4), plan)
    assert [call.op for call in tape.in_phase("forward")] == ["mul", "_to_copy", f"_{name}"]


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_softmax_of_float16_into_float32_makes_no_copy_of_its_input(function):
    def head(x):
        return function(x.half(), 1, dtype=torch.float32)

    def head_of_bfloat16(x):
        return function(x.bfloat16(), 1, dtype=torch.float32)

    plan, name = TrainingPlan(loss=lambda y: y.sum()), f"_{function.__name__}"
    fused = record(Scaled(head), (5, 4), plan)
    assert [call.op for call in fused.in_phase("forward")] == ["mul", "_to_copy", name]
    assert fused.calls[2].arguments["half_to_float"] is True
    assert fused.values[fused.calls[2].output].dtype is torch.float32
    copied = record(Scaled(head_of_bfloat16), (5, 4), plan)
    assert [call.op for call in copied.in_phase("forward")] == ["mul", "_to_copy", "_to_copy", name]


def test_other_threads_and_later_code_are_not_concerned():
    seen = []

    def elsewhere():
        with DispatchedNames() as names:
            F.dropout(torch.ones(100), 0.5)
        seen.extend(names.names)

    with DeviceRewrites():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert torch.equal(
            F.softmax(torch.ones(2, 2).half(), 1, dtype=torch.float32), torch.full((2, 2), 0.5)
        )
        assert torch.equal(
            F.scaled_dot_product_attention(*3 * [torch.ones(1, 1, 2, 8)]), torch.ones(1, 1, 2, 8)
        )
    assert "bernoulli_" in seen


ENTRIES = """
import torch
from convscope.tape import TrainingPlan, record
keys = "CPU", "AutogradCPU", "AutocastCPU", "CompositeImplicitAutograd"
ask = torch._C._dispatch_get_registrations_for_dispatch_key
names = {name for key in keys for name in ask(key)}
def listed():
    lines = [line for name in sorted(names) for line in torch._C._dispatch_dump(name).splitlines()]
    return [line for line in lines if "AutocastCPU" not in line], lines
before = listed()
network = torch.nn.TransformerEncoderLayer(8, 2, 8)
record(network, (3, 2, 8), TrainingPlan(loss=lambda y: y.float().sum()))
record(network, (3, 2, 8))
assert listed() == before
record(network, (3, 2, 8), TrainingPlan(precision="amp-fp16", loss=lambda y: y.float().sum()))
assert listed()[0] == before[0] and listed()[1] != before[1]
"""


@pytest.mark.slow
def test_plain_recordings_leave_the_dispatcher_alone():
    subprocess.run([sys.executable, "-W", "ignore", "-c", ENTRIES], check=True)


def test_recordings_nest():
    class Curious(nn.Module):
        def forward(self, x):
            record(nn.Dropout(0.5), (2, 3), step=lambda model, args, kwargs: model.train()(*args))
            return F.dropout(x, 0.5)

    tape = record(Curious(), (2, 3))
    assert tape.calls[-1].op == "native_dropout"
    assert "bernoulli_" not in {call.op for call in tape.calls}

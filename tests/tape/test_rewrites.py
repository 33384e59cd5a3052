"""What CUDA does differently: dropout and softmax, against CUDA's documented operators."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
    assert not torch._C._dispatch_has_kernel_for_dispatch_key("aten::dropout", "AutogradCPU")


def test_recordings_nest():
    class Curious(nn.Module):
        def forward(self, x):
            record(nn.Dropout(0.5), (2, 3), step=lambda model, args, kwargs: model.train()(*args))
            return F.dropout(x, 0.5)

    tape = record(Curious(), (2, 3))
    assert tape.calls[-1].op == "native_dropout"
    assert "bernoulli_" not in {call.op for call in tape.calls}

"""The tape over a sample of the zoos: the operators of a real run, and networks left as they were."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

import convscope.tape.recorder as recorder
from convscope.tape import TrainingPlan, forms, record
from dispatched import DispatchedNames
from zoo import BRIEF, SAMPLE, make, staged


@pytest.mark.parametrize("reference", staged(SAMPLE, BRIEF))
def test_a_network_is_recorded_as_it_runs_and_left_as_it_was(reference):
    model, shape = make(reference)
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    step = record(model, shape, TrainingPlan())
    tape = record(model, shape, device="cpu")
    assert model.training
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0]
        assert torch.equal(tensor, before[name][1])
        assert tensor.grad is None

    backward = [call for call in step.in_phase("backward") if call.op.endswith("_backward")]
    assert backward
    assert all(call.forward is not None for call in backward)
    alive = {
        storage.index for storage in step.storages if storage.role == "activation" and storage.death is None
    }
    assert alive <= {step.values[value].storage for value in step.outputs} | _cached(step)

    model.eval()
    inputs = torch.randn(shape)
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), DispatchedNames() as real:
            model(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)
    assert [call.op for call in tape.calls] == real.names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reference", staged(SAMPLE, BRIEF))
def test_memory_of_forms_and_real_runs_give_the_same_tape(reference, monkeypatch):
    """Storages, too: births, deaths and sizes of a step that runs with real tensors."""
    model, shape = make(reference)
    forms._remembered.clear()
    first, again = record(model, shape, TrainingPlan()), record(model, shape, TrainingPlan())
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "key_of", lambda *_: None)
        plain = record(model, shape, TrainingPlan())
    assert again == first == plain
    if max(shape[2:]) <= 64:
        first = record(model, shape, TrainingPlan(), device="cpu")
        real = record(model, shape, TrainingPlan(), device="cpu", real=True)
        assert [call.op for call in real.calls] == [call.op for call in first.calls]
        assert real.storages == first.storages


@pytest.mark.whole_zoo
def test_the_brief_sample_has_all_that_the_sample_has():
    kinds = {reference: _kinds(*make(reference)) for reference in SAMPLE}
    assert set().union(*(kinds[reference] for reference in BRIEF)) == set().union(*kinds.values())


def _kinds(model, shape):
    """Operators by phase, in training and in inference, and kinds of convolutions and batch norms."""
    step, tape = record(model, shape, TrainingPlan()), record(model, shape, device="cpu")
    kinds = {(call.phase, call.op) for call in step.calls} | {call.op for call in tape.calls}
    for module in model.modules():
        if isinstance(module, _ConvNd):
            groups = "depthwise" if module.groups == module.in_channels > 1 else module.groups > 1
            strided, dilated = max(module.stride) > 1, max(module.dilation) > 1
            kinds.add((type(module), groups, strided, dilated, isinstance(module.padding, str)))
        elif isinstance(module, _BatchNorm):
            kinds.add((type(module), isinstance(getattr(module, "act", nn.Identity()), nn.Identity)))
    return kinds


def _cached(tape):
    """Storages that a module keeps for itself after its forward: nothing in backward reads them."""
    return {
        storage.index
        for storage in tape.storages
        if storage.role == "activation"
        and not any(
            tape.values[value].storage == storage.index
            for call in tape.in_phase("backward")
            for value in call.inputs
        )
    }

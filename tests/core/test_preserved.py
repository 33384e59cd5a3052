import random

import numpy as np
import pytest
import torch
from torch import nn

from cases import CASES, ResidualNet, state_of
from convscope.core.preserved import preserved, preserved_rng


def _vandalise(model):
    """Change everything that a careless tool could."""
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
        module.training = not module.training
        module.extra = "attribute"
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
            tensor.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    name = next(iter(dict(model.named_children())))
    delattr(model, name)
    model.register_buffer("intruder", torch.ones(3))
    torch.rand(3), np.random.rand(3), random.random()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "functional"], ids=lambda case: case.name
)
@pytest.mark.parametrize("fails", [False, True])
def test_everything_comes_back(case, fails):
    model = case.make()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(model)
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    numpy, python = np.random.get_state()[1].tolist(), random.getstate()
    try:
        with preserved(model):
            _vandalise(model)
            if fails:
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert fails
    after = state_of(model)
    kinds = [key for key in before if key.endswith("!kind")]
    # Writing a tensor back counts as a write, so that versions (and nothing else) may have grown.
    for key in kinds:
        assert after[key][:2] == before[key][:2]
    assert {k: v for k, v in after.items() if k not in kinds} == {
        k: v for k, v in before.items() if k not in kinds
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, values[name])
    assert np.random.get_state()[1].tolist() == numpy
    assert random.getstate() == python


def test_untouched_tensors_are_not_written():
    model = ResidualNet().eval()
    before = state_of(model)
    with preserved(model):
        model(torch.randn(2, 3, 17, 13))
    after = state_of(model)
    assert after == {**before, "rng": after["rng"]}


def test_bits_count_not_values():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.0, float("nan")]]))
    with preserved(model), torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0]]))
    assert torch.signbit(model.weight[0, 0])
    assert model.weight[0, 1].isnan()


def test_generators_come_back():
    torch.manual_seed(3)
    with preserved_rng():
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), first)


def test_a_model_made_in_inference_mode_is_preserved():
    with torch.inference_mode():
        model = nn.BatchNorm1d(3)
        with preserved(model):
            model(torch.randn(4, 3))
        assert int(model.num_batches_tracked) == 0

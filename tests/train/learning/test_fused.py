"""Steps of fused optimizers against plain ones in float64, where PyTorch's kernels alone are wrong."""

import copy

import pytest
import torch
from torch import nn

from convscope.train.config import TrainConfig
from convscope.train.learning.optimizer import build_optimizer

OPTIMIZERS = ["sgd", "sgd-momentum", "adam", "adamw"]
PLAIN = {
    "sgd": (torch.optim.SGD, {}),
    "sgd-momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}


class _Weights(nn.Module):
    """Parameters of the given values."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.ParameterList(nn.Parameter(value) for value in values)


def _layouts():
    image = torch.randn(6, 5, 3, 2)
    return {
        "contiguous": (image, torch.randn(7, 19)),
        "channels_last": (image.contiguous(memory_format=torch.channels_last), torch.randn(())),
        "transposed": (torch.randn(19, 7).t(), torch.randn(33)),
        "sliced": (torch.randn(7, 40)[:, :33], torch.randn(1)),
        "strided": (torch.randn(34)[::2], torch.randn(2, 17)),
    }


def _stepped(model, optimizer, gradients):
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()


def _gradients(model):
    """Contiguous ones and ones with the parameters' strides by turns."""
    for step in range(4):
        yield [torch.randn(p.shape) if step % 2 else torch.randn_like(p) for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("layout", list(_layouts()))
def test_steps_are_right_whatever_the_strides(name, layout):
    model = _Weights(*_layouts()[layout])
    exact = copy.deepcopy(model).double()
    config = TrainConfig(optimizer=name, learning_rate=0.01, weight_decay=0.03)
    ours = build_optimizer(model, config)
    kind, settings = PLAIN[name]
    groups = [{"params": [p], "weight_decay": 0.03 if p.ndim > 1 else 0.0} for p in exact.parameters()]
    theirs = kind(groups, lr=0.01, **settings)
    for gradients in _gradients(model):
        _stepped(model, ours, gradients)
        _stepped(exact, theirs, gradients)
    for found, expected in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", OPTIMIZERS[1:])
def test_a_loaded_state_gets_the_strides_of_its_parameters(name):
    """As files hold it: contiguous."""
    model = _Weights(torch.randn(6, 5, 3, 2).contiguous(memory_format=torch.channels_last))
    config = TrainConfig(optimizer=name, learning_rate=0.01)
    first, *others = list(_gradients(model))
    optimizer = build_optimizer(model, config)
    _stepped(model, optimizer, first)
    twin = copy.deepcopy(model)
    state = copy.deepcopy(optimizer.state_dict())
    for entries in state["state"].values():
        for entry, value in entries.items():
            entries[entry] = value.clone(memory_format=torch.contiguous_format)
    resumed = build_optimizer(twin, config)
    resumed.load_state_dict(state)
    for gradients in others:
        _stepped(model, optimizer, gradients)
        _stepped(twin, resumed, gradients)
    assert torch.equal(model.values[0], twin.values[0])


def test_fused_kernels_are_taken_where_they_are_right():
    def is_fused(value, **settings):
        return build_optimizer(_Weights(value), TrainConfig(**settings)).param_groups[0].get("fused") is True

    assert is_fused(torch.randn(3, 4))
    assert is_fused(torch.randn(3, 4, dtype=torch.float64), optimizer="adamw")
    assert not is_fused(torch.randn(3, 4, dtype=torch.bfloat16))
    assert not is_fused(torch.randn(3, 8)[:, :4])
    assert not is_fused(torch.randn(3, 4), optimizer="rmsprop")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_step_is_right_in_every_dtype(dtype):
    model = nn.Linear(40, 3, bias=False, dtype=dtype)
    weight, gradient = model.weight.detach().clone().double(), torch.randn(3, 40).to(dtype)
    model.weight.grad = gradient.clone()
    build_optimizer(model, TrainConfig(optimizer="sgd", learning_rate=0.1, weight_decay=0.0)).step()
    expected = weight - 0.1 * gradient.double()
    rounding = 2 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(model.weight.detach().double(), expected, rtol=0, atol=rounding)


def test_sparse_gradients_count_as_dense_ones():
    sparse, dense = nn.Embedding(9, 4, sparse=True), nn.Embedding(9, 4)
    dense.load_state_dict(sparse.state_dict())
    for model in (sparse, dense):
        optimizer = build_optimizer(model, TrainConfig(learning_rate=0.1))
        for rows in ([0, 3, 3], [3, 8, 1]):
            optimizer.zero_grad()
            model(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(sparse.weight, dense.weight, rtol=1e-6, atol=1e-7)

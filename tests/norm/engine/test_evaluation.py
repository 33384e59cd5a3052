"""Test time by constants, whatever dtypes meet: a layer that trains on a batch must evaluate it too."""

import pytest
import torch
from torch import nn

from convscope.norm.engine.evaluation import by_running, of_nothing
from convscope.norm.layers.batch import BatchNorm2d
from norm.four_steps import relative

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-6}


def trained(dtype):
    layer = BatchNorm2d(3)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        nn.init.uniform_(tensor, 0.5, 2.0)
    return layer.to(dtype).eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parameters", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_any_dtype_of_the_input_with_any_of_the_layer(dtype, parameters, masked):
    layer = trained(parameters)
    x = torch.randn(4, 3, 5, 2).to(dtype).requires_grad_()
    mask = torch.rand(4, 1, 5, 2) < 0.7 if masked else None
    y = by_running(layer, x, mask)
    weight, bias, mean, variance = (
        tensor.detach().double().view(1, 3, 1, 1)
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    )
    expected = (x.detach().double() - mean) / torch.sqrt(variance + layer.eps) * weight + bias
    expected = expected if mask is None else expected.where(mask, 0)
    assert y.dtype == dtype
    assert relative(y.detach(), expected) < TOLERANCE[dtype]
    y.sum().backward()
    assert (x.grad.dtype, layer.weight.grad.dtype, layer.bias.grad.dtype) == (dtype, parameters, parameters)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parameters", DTYPES)
def test_an_empty_batch_of_any_dtype(dtype, parameters):
    layer = trained(parameters)
    y = of_nothing(layer, torch.empty(0, 3, 5, 2, dtype=dtype))
    assert (y.shape, y.dtype) == ((0, 3, 5, 2), dtype)
    y.sum().backward()
    assert layer.weight.grad.tolist() == [0, 0, 0]

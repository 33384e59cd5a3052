"""The oracle of refitted group norms: numpy's lstsq on written-out values; and networks to fit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from convscope.norm import GroupNorm


def x_hat(x, groups, eps):
    """Group norm's x̂ in numpy, sample by sample and group by group."""
    x = x.double().numpy()
    out = np.empty_like(x)
    per_group = x.shape[1] // groups
    for sample in range(len(x)):
        for group in range(groups):
            channels = slice(group * per_group, (group + 1) * per_group)
            values = x[sample, channels]
            out[sample, channels] = (values - values.mean()) / np.sqrt(values.var() + eps)
    return out


def least_squares(x, target, groups, eps):
    """γ, β and the residual by numpy's lstsq on the written-out values of each channel."""
    hat, wanted = x_hat(x, groups, eps), target.double().numpy()
    solutions, error, spread = [], 0.0, 0.0
    for channel in range(x.shape[1]):
        values, goal = hat[:, channel].ravel(), wanted[:, channel].ravel()
        matrix = np.stack([values, np.ones_like(values)], axis=1)
        solution = np.linalg.lstsq(matrix, goal, rcond=None)[0]
        solutions.append(solution)
        error += np.square(matrix @ solution - goal).sum()
        spread += np.square(goal - goal.mean()).sum()
    weight, bias = torch.from_numpy(np.array(solutions).T)
    return weight, bias, float(np.sqrt(error / spread))


def randomised(norm):
    """A batch norm as after some training."""
    with torch.no_grad():
        if norm.affine:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2)
    return norm


def net(norm_class=nn.BatchNorm2d, **kwargs):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), randomised(norm_class(8, **kwargs)), nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=2), randomised(norm_class(12, **kwargs)), nn.ReLU(inplace=True),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


def images(number=12, side=9):
    return torch.randn(number, 3, side, side)


def ready(model, batch):
    model(batch)  # materialises the lazy layer
    return model.eval()


def converted(model, fits):
    """A copy of the model with group norms in the place of its batch norms."""
    model = copy.deepcopy(model)
    for path, fit in fits.items():
        layer = GroupNorm(fit.num_groups, len(fit.weight), eps=fit.eps)
        with torch.no_grad():
            layer.weight.copy_(fit.weight)
            layer.bias.copy_(fit.bias)
        model.set_submodule(path, layer.to(next(model.parameters()).dtype))
    return model.eval()


def assert_fit(fit, x, target, tolerance=1e-9):
    weight, bias, error = least_squares(x, target, fit.num_groups, fit.eps)
    assert torch.allclose(fit.weight, weight, atol=tolerance, rtol=tolerance)
    assert torch.allclose(fit.bias, bias, atol=tolerance, rtol=tolerance)
    assert fit.residual == pytest.approx(error, rel=1e-6, abs=1e-7)


def group_norm(x, fit):
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return torch.from_numpy(x_hat(x, fit.num_groups, fit.eps)) * fit.weight.view(shape) + fit.bias.view(shape)


def batch_norm(x, norm):
    """Batch norm at test time, written out."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    weight = scale if norm.weight is None else norm.weight * scale
    bias = 0 if norm.bias is None else norm.bias.view(shape)
    return ((x - norm.running_mean.view(shape)) * weight.view(shape) + bias).detach()


def copy_with(fit, weight, bias):
    fields = {**vars(fit), "weight": weight, "bias": bias}
    return type(fit)(**fields)

"""Oracles for recalibration: explicit float64 statistics, and what a network holds."""

import copy

import torch
from torch import nn

from cases import state_of
from convscope.norm import BatchNorm2d


def two_pass(*inputs):
    """Mean and unbiased variance per channel of whole inputs (N, C, *), in float64, by the definition."""
    x_C = [x.double().transpose(0, 1).flatten(1) for x in inputs]
    values_CN = torch.cat(x_C, dim=1)
    mean_C = torch.stack([channel.sum() / len(channel) for channel in values_CN])
    squares = [((channel - mean) ** 2).sum() for channel, mean in zip(values_CN, mean_C)]
    return mean_C, torch.stack(squares) / (values_CN.shape[1] - 1)


def deployed_inputs(model, batches):
    """What every batch norm is given in evaluation mode, all data together, as hooks see it."""
    model, seen = copy.deepcopy(model).eval(), {}
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(
                lambda _, args, path=path: seen.setdefault(path, []).append(args[0].clone())
            )
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return seen


def convnet(dtype=torch.float32):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.01), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=None), nn.ReLU(inplace=True),
        nn.Conv2d(5, 3, 3), BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4),
        nn.BatchNorm1d(4),
    ).to(dtype)  # fmt: skip


def sequential_by_hand(net, x):
    """Exact statistics of an ``nn.Sequential``: all data at once, module by module, in float64."""
    net, x, found = copy.deepcopy(net).double().eval(), x.double(), {}
    with torch.no_grad():
        for path, module in net.named_children():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                found[path] = two_pass(x)
                module.running_mean.copy_(found[path][0])
                module.running_var.copy_(found[path][1])
            x = module(x)
    return found


def unchanged(model, before, *, but=()):
    """Check that nothing of a model differs, but for some buffers' contents; writes may have been counted."""
    after = state_of(model)
    for state in (before, after):
        for key in [key for key in state if key.endswith("!kind")]:
            state[key] = state[key][:2]
    assert {key for key in before if after.get(key) != before[key]} == set(but)
    assert set(after) == set(before)

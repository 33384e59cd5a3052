"""Layers to call with masks, and the oracle: loops that gather the values that count, in float64."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import nn

from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.layers.ghost import GhostBatchNorm1d, GhostBatchNorm2d
from convscope.norm.layers.group import GroupNorm
from convscope.norm.layers.instance import InstanceNorm1d, InstanceNorm2d
from convscope.norm.layers.layer import LayerNorm
from convscope.norm.layers.renorm import BatchRenorm1d, BatchRenorm2d

RENORM = {"r_max": 1.2, "d_max": 0.3, "relaxation": None}


@dataclass(frozen=True)
class Case:
    """A layer for an input, and which set each value belongs to, by its sample n and channel c."""

    make: object
    shape: tuple
    set_of: object  # (n, c) -> the set's name
    kind: str = ""


def per_channel(n, c):
    return (c,)


CASES = {
    "batch of features": Case(lambda: BatchNorm1d(4), (6, 4), per_channel, "batch"),
    "batch of sequences": Case(lambda: BatchNorm1d(4), (5, 4, 6), per_channel, "batch"),
    "batch, C == L == N": Case(lambda: BatchNorm1d(5), (5, 5, 5), per_channel, "batch"),
    "batch": Case(lambda: BatchNorm2d(4), (5, 4, 3, 6), per_channel, "batch"),
    "batch of volumes": Case(lambda: BatchNorm3d(2), (3, 2, 3, 2, 4), per_channel, "batch"),
    "batch, cumulative": Case(lambda: BatchNorm2d(4, momentum=None), (5, 4, 3, 6), per_channel, "batch"),
    "batch, not affine": Case(lambda: BatchNorm2d(4, affine=False), (5, 4, 3, 6), per_channel, "batch"),
    "renorm": Case(lambda: BatchRenorm2d(4, **RENORM), (5, 4, 3, 6), per_channel, "renorm"),
    "renorm of features": Case(lambda: BatchRenorm1d(4, **RENORM), (6, 4), per_channel, "renorm"),
    "ghost": Case(
        lambda: GhostBatchNorm2d(4, ghost_batch_size=2), (5, 4, 3, 6), lambda n, c: (n // 2, c), "ghost"
    ),
    "ghost, equal parts": Case(
        lambda: GhostBatchNorm1d(4, ghost_batch_size=3), (6, 4, 6), lambda n, c: (n // 3, c), "ghost"
    ),
    "instance": Case(lambda: InstanceNorm2d(4, affine=True), (5, 4, 3, 6), lambda n, c: (n, c)),
    "instance of sequences": Case(
        lambda: InstanceNorm1d(4, affine=True, track_running_stats=True, momentum=0.3),
        (5, 4, 6),
        lambda n, c: (n, c),
        "instance",
    ),
    "group": Case(lambda: GroupNorm(2, 4), (5, 4, 3, 6), lambda n, c: (n, c // 2)),
    "group of features": Case(lambda: GroupNorm(2, 8), (5, 8), lambda n, c: (n, c // 4)),
    "one group, C == L": Case(lambda: GroupNorm(1, 6), (5, 6, 6), lambda n, c: (n,)),
    "layer": Case(lambda: LayerNorm((4, 3, 6)), (5, 4, 3, 6), lambda n, c: (n,)),
}
WITH_RUNNING = [name for name, case in CASES.items() if case.kind]
PER_SAMPLE = ["instance", "instance of sequences", "group", "layer"]
LAYOUTS = {4: [None, torch.channels_last], 5: [None, torch.channels_last_3d]}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def built(case, dtype=torch.float64):
    layer = case.make()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
    return layer.to(dtype)


def mask_shapes(case):
    """The shapes that a mask may have: without channels, one for all channels, whole, and broadcast."""
    n, c, *space = case.shape
    shapes = [(n, 1, *space), (n, c, *space), (n, 1, *([1] * len(space)))]
    if not isinstance(case.make(), LayerNorm):
        shapes.append((n, *space))
    if space:
        shapes += [(1, 1, *space), (1, c, *space), (n, c, *([1] * (len(space) - 1)), space[-1])]
    return shapes


def random_mask(shape, case):
    """A mask that leaves every set of more than a sample at least two values."""
    mask = torch.rand(shape) < 0.6
    if shape[0] == 1 or len(case.shape) == 2:
        mask[0] = True
        mask[-1] = True
    if case.kind == "ghost":
        mask[::2] = True
    if shape[0] == case.shape[0] and case.kind != "ghost" and len(case.shape) > 2:
        mask[0], mask[-1] = True, False  # a sample with nothing that counts
    return mask


def whole(mask, shape):
    """The mask, written out for every value."""
    mask = mask[:, None] if mask.dim() == len(shape) - 1 else mask
    return mask.expand(shape)


def by_loops(case, layer, x, mask):
    """Return output and, set by set, count, mean and biased variance, from the values that count alone.

    In float64 and differentiable; r and d of renorm are cut out of the graph.
    """
    n, c = case.shape[:2]
    members = {}
    for at in itertools.product(range(n), range(c)):
        members.setdefault(case.set_of(*at), []).append(at)
    xhat, found = torch.zeros_like(x), {}
    for name, places in members.items():
        gathered = torch.cat([x[place][mask[place]] for place in places])
        count = gathered.numel()
        if count == 0:
            found[name] = (0, None, None)
            continue
        mean = gathered.sum() / count
        variance = ((gathered - mean) ** 2).sum() / count
        found[name] = (count, mean.detach(), variance.detach())
        deviation = torch.sqrt(variance + layer.eps)
        for place in places:
            row = (x[place].masked_fill(~mask[place], 0) - mean) / deviation
            if case.kind == "renorm":
                channel = place[1]
                sigma = math.sqrt(layer.running_var[channel].item() + layer.eps)
                r = min(max(deviation.item() / sigma, 1 / layer.r_max), layer.r_max)
                d = (mean.item() - layer.running_mean[channel].item()) / sigma
                row = row * r + min(max(d, -layer.d_max), layer.d_max)
            index = torch.zeros(x.shape[:2], dtype=torch.bool)
            index[place] = True
            index = index.view(*index.shape, *[1] * (x.dim() - 2))
            xhat = torch.where(index & mask, row.expand_as(x) if row.dim() == 0 else row, xhat)
    return xhat, found


def affine(layer, parameters, xhat, mask):
    view = (1, -1) + (1,) * (xhat.dim() - 2)
    if not parameters:
        return xhat
    weight, bias = (p if isinstance(layer, LayerNorm) else p.view(view) for p in parameters)
    return torch.where(mask, xhat * weight + bias, torch.zeros_like(xhat))


def moved(case, layer, found, running, number):
    """Return the running averages after a batch, in float64, and how many batches it was."""
    mean, variance = (average.clone() for average in running)
    if case.kind == "ghost":
        batches = [[found[part, c] for c in range(len(mean))] for part in sorted({part for part, _ in found})]
    elif case.kind == "instance":
        batches = [[]]
        for c in range(len(mean)):
            sets = [entry for (_, channel), entry in found.items() if channel == c and entry[0] > 1]
            means = sum(entry[1] for entry in sets) / len(sets)
            unbiased = sum(entry[2] * entry[0] / (entry[0] - 1) for entry in sets) / len(sets)
            batches[0].append((math.inf, means, unbiased))
    else:
        batches = [[found[(c,)] for c in range(len(mean))]]
    for batch in batches:
        number += 1
        weight = 1 / number if layer.momentum is None else layer.momentum
        for c, (count, batch_mean, batch_variance) in enumerate(batch):
            unbiased = batch_variance * (1 if count == math.inf else count / (count - 1))
            mean[c] = (1 - weight) * mean[c] + weight * batch_mean
            variance[c] = (1 - weight) * variance[c] + weight * unbiased
    return mean, variance, number

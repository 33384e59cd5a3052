"""Observed values made by hand, for judges to judge."""

from dataclasses import replace

import torch
from torch import nn

from convscope.checkup.measuring.describe import Roster
from convscope.checkup.measuring.population import Pool
from convscope.checkup.observed import Observation


def population(batches):
    """The population of some batches."""
    pool = Pool()
    for x in batches:
        pool.add(x, x)
    return pool.population()


def norm(batches=None, channels=3, **changes):
    """A batch norm call with a population, in training."""
    layer = Roster(nn.BatchNorm1d(channels).train()).from_module("self")
    found = None if batches is None else population(batches)
    return replace(layer, population=found, batch_population=found, **changes)


def observation(*norms, batches=(), **changes):
    """An observation of some calls, on some batches."""
    return Observation(
        norms=norms, training=True, num_samples=sum(len(x) for x in batches), num_batches=len(batches),
        **changes,
    )  # fmt: skip


def shifted(number=64, by=0.0, scale=1.0, channels=3):
    """Batches of features."""
    return list((torch.randn(number, channels) * scale + by).split(16))

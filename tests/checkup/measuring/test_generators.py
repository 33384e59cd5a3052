"""Generators of every kind, wherever a loader holds them."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Sampler

from convscope.checkup.measuring.batches import preserved_order
from convscope.checkup.mending.trial import split
from convscope.checkup.mending.workshop import Reread


class _Shuffled(Sampler):
    def __init__(self, draws, shuffle):
        self.draws, self._shuffle = draws, shuffle

    def __iter__(self):
        return iter(self._shuffle(self.draws))

    def __len__(self):
        return 60


def _by_python(draws):
    order = list(range(60))
    draws.shuffle(order)
    return order


class _Wrapper:
    def __init__(self, loader):
        self.inner = loader

    def __iter__(self):
        return iter(self.inner)

    def __len__(self):
        return len(self.inner)


def _loaders():
    data = torch.arange(60.0)[:, None]
    own = {"shuffle": True, "generator": torch.Generator().manual_seed(0)}
    numpy = _Shuffled(np.random.default_rng(0), lambda draws: draws.permutation(60).tolist())
    legacy = _Shuffled(np.random.RandomState(0), lambda draws: draws.permutation(60).tolist())
    return {
        "own": DataLoader(data, 4, **own),
        "wrapped": _Wrapper(_Wrapper(DataLoader(data, 4, **own)).inner),
        "numpy": DataLoader(data, 4, sampler=numpy),
        "legacy": DataLoader(data, 4, sampler=legacy),
        "python": DataLoader(data, 4, sampler=_Shuffled(random.Random(0), _by_python)),
    }


def _order(loader):
    return torch.cat(list(loader)).flatten().tolist()


@pytest.mark.parametrize("kind", sorted(_loaders()))
def test_a_loader_goes_on_as_if_it_had_not_been_read(kind):
    expected = _order(_loaders()[kind])
    loader = _loaders()[kind]
    with preserved_order(loader):
        assert _order(loader) == expected
    assert _order(loader) == expected


@pytest.mark.parametrize("kind", sorted(_loaders()))
def test_held_out_batches_are_held_out(kind):
    parts = split(Reread(_loaders()[kind], None), 15)
    read, held = (set(_order(part)) for part in (parts.estimated, parts.tried))
    assert not read & held
    assert len(read | held) == 60
    assert "held-out" in parts.words


def test_an_order_that_cannot_be_kept_is_told():
    class Hidden(Sampler):
        def __iter__(self):
            return iter(np.random.default_rng().permutation(60).tolist())

        def __len__(self):
            return 60

    parts = split(Reread(DataLoader(torch.arange(60.0)[:, None], 4, sampler=Hidden()), None), 15)
    for part in (parts.estimated, parts.tried):
        list(part)
    assert "not held out" in parts.words

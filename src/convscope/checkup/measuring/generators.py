"""The random generators of a loader, its own and the global ones, so that it reads alike twice."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

_PARTS = ("sampler", "batch_sampler", "dataset")
_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@dataclass(frozen=True, eq=False)
class Draws:
    """A generator in the state that it was met in.

    Attributes:
        generator: PyTorch's, NumPy's or Python's.
        restore: sets it back to that state.
    """

    generator: Any
    restore: Callable[[], object]


def draws_of(data: Any) -> list[Draws]:
    """Return the generators that a loader, its samplers and its data set hold, each once.

    Found as attributes of a ``DataLoader``, of its parts, and of one within a wrapper: a prefetcher, or
    ``tqdm(loader)``. What lies deeper, or in a worker process, isn't found.

    Example:
        >>> own = torch.Generator()
        >>> [each.generator is own for each in draws_of(DataLoader(range(8), shuffle=True, generator=own))]
        [True]
    """
    found = {
        id(value): value
        for holder in _holders(data)
        for value in getattr(holder, "__dict__", {}).values()
        if isinstance(value, _KINDS)
    }
    return [Draws(each, _restorer(each)) for each in found.values()]


def global_draws() -> Callable[[], None]:
    """Return what sets Python's, NumPy's and PyTorch's global generators (CPU) back to their state of now.

    A loader without a generator of its own shuffles by them, and so may what varies images.

    Example:
        >>> restore = global_draws()
        >>> first = torch.rand(1)
        >>> restore()
        >>> torch.equal(torch.rand(1), first)
        True
    """
    python, numpy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torchs)

    return restore


def _holders(data: Any) -> Iterator[Any]:
    """Data, the loaders that it wraps, and the parts of these."""
    seen: set[int] = set()
    ahead = [data]
    while ahead:
        holder = ahead.pop()
        if holder is None or id(holder) in seen:
            continue
        seen.add(id(holder))
        yield holder
        ahead += [getattr(holder, name, None) for name in _PARTS]
        inner = getattr(holder, "__dict__", {}).values()
        ahead += [value for value in inner if isinstance(value, DataLoader)]


def _restorer(generator: Any) -> Callable[[], object]:
    if isinstance(generator, torch.Generator):
        tensor = generator.get_state()
        return lambda: generator.set_state(tensor)
    if isinstance(generator, np.random.Generator):
        bits, inner = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", inner)
    if isinstance(generator, np.random.RandomState):
        legacy = generator.get_state()
        return lambda: generator.set_state(legacy)
    state = generator.getstate()
    return lambda: generator.setstate(state)

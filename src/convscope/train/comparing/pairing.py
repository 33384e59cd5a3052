"""The same initial weights in all arms, wherever their shapes agree.

The order of the images, their augmentation and the draws of a step follow from the seed alone. Initial
weights don't: a network without batch norm also draws the biases of its convolutions, and everything drawn
afterwards is another number. So while a network is built, each random operator is seeded for itself, by the
seed, its name, the shapes that it fills and how often such a draw came before.

Limits: two arms whose weights have other shapes, or are drawn by another kind of initialisation, can't start
the same; draws by NumPy or Python are seeded once, in the order in which they come.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.core.preserved import preserved_rng
from convscope.core.seeds import derived_seed


@contextmanager
def paired_draws(seed: int) -> Iterator[None]:
    """Run a block in which draws depend on the seed and on what they fill, not on draws before them.

    The global generators are as before afterwards.

    Args:
        seed: of the run.

    Example:
        >>> with paired_draws(0):
        ...     with_bias = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> with paired_draws(0):
        ...     without = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
        >>> bool((with_bias[1].weight == without[1].weight).all())
        True
    """
    with preserved_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  (a network's own code may draw from it)
        torch.manual_seed(seed)
        with _SeededDraws(seed):
            yield


class _SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Seeds PyTorch's generators before every random operator that isn't given a generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed = seed
        self.drawn: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and given.get("generator") is None:
            place = f"{func}{[_shape(value) for value in args]}"
            torch.manual_seed(derived_seed(self.seed, "weights", place, self.drawn[place]))
            self.drawn[place] += 1
        return func(*args, **given)


def _shape(value: Any) -> Any:
    """Of an argument what says which draw it is; the scale of a distribution doesn't."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(value) if isinstance(value, list | tuple | torch.Size) else None


def fingerprints(model: nn.Module) -> dict[str, tuple[list[int], str]]:
    """Return the shape and a digest of the content of every parameter, by name."""
    return {name: (list(parameter.shape), _digest(parameter)) for name, parameter in model.named_parameters()}


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(content.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Start:
    """How the initial weights of an arm are paired with those of the baseline, in the seeds that both ran.

    Attributes:
        arm: its name.
        same: parameters that start with the same values as one of the baseline's, in every seed.
        drawn_otherwise: parameters of the same name and shape that start with other values.
        other_shape: parameters that the baseline has in another shape, or not at all.
        seeds: how many were looked at.
    """

    arm: str
    same: int
    drawn_otherwise: tuple[str, ...]
    other_shape: tuple[str, ...]
    seeds: int


Fingerprints = Mapping[str, Sequence[Any]]


def start_of(arm: str, pairs: Sequence[tuple[Fingerprints, Fingerprints]]) -> Start:
    """Return how an arm's initial weights are paired with the baseline's.

    Args:
        arm: its name.
        pairs: fingerprints of the arm and of the baseline, for each seed.
    """
    names = list(dict.fromkeys(name for ours, _ in pairs for name in ours))
    other_shape, otherwise = [], []
    for name in names:
        if all(ours[name] in theirs.values() for ours, theirs in pairs):
            continue  # under this name or, where layers are numbered, another one
        if any(ours[name][0] != theirs.get(name, [None])[0] for ours, theirs in pairs):
            other_shape.append(name)
        else:
            otherwise.append(name)
    same = len(names) - len(otherwise) - len(other_shape)
    return Start(arm, same, tuple(otherwise), tuple(other_shape), len(pairs))

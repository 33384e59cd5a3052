"""Real inputs to try a network on: what the user gave, random ones like it, and ones of another shape."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from convscope.core.errors import ConvscopeError

MOST_SAMPLES = 2
_FEW_SAMPLES = 8

Kind = Literal["given", "random", "other size", "other number"]
"""What a trial is for: the inputs given, random ones like them, another spatial size, another number."""

_AMONG_SHAPES = {"given": "random", "random": "random again"}


@dataclass(frozen=True)
class Trial:
    """One set of inputs, made when it is needed.

    Attributes:
        inputs: as :func:`described` returns them.
        seed: of the random numbers; None keeps the values that the user gave.
        batch: number of samples, or None for as many as were given.
        growth: added to every spatial size (the axes from 2 on) of floating inputs.
        kind: what it is for.
    """

    inputs: Any
    seed: int | None
    batch: int | None = None
    growth: int = 0
    kind: Kind = "given"

    def call(
        self, device: torch.device, dtype: torch.dtype | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return new positional and keyword arguments; floating tensors in ``dtype``, or in their own."""
        generator = torch.Generator().manual_seed(self.seed or 0)

        def make(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            recast = dtype is not None and leaf.is_floating_point()
            made = self._make(leaf, generator)
            return made.to(device=device, dtype=dtype if recast else leaf.dtype, copy=True)

        made = tree_map(make, self.inputs)
        return ((), made) if isinstance(made, dict) else (made, {})

    def shapes(self) -> tuple[str, ...]:
        """Return the shapes of the tensors, one text each."""
        return tuple(str(self._shape(leaf)) for leaf in tree_leaves(self.inputs) if isinstance(leaf, Tensor))

    def label(self) -> str:
        """Return the shapes and what they are for, such as ``"(2, 3, 64, 64) random"``."""
        what = _AMONG_SHAPES.get(self.kind, self.kind) if self.has_shapes_only else self.kind
        return f"{', '.join(self.shapes())} {what}"

    @property
    def has_shapes_only(self) -> bool:
        """Whether no numbers were given, so that all are random."""
        return all(leaf.is_meta for leaf in tree_leaves(self.inputs) if isinstance(leaf, Tensor))

    def _shape(self, leaf: Tensor) -> tuple[int, ...]:
        shape = list(leaf.shape)
        if self.batch is not None and shape and shape[0] == _num_samples(self.inputs):
            shape[0] = self.batch
        if leaf.is_floating_point():
            shape[2:] = [size + self.growth for size in shape[2:]]
        return tuple(shape)

    def _make(self, leaf: Tensor, generator: torch.Generator) -> Tensor:
        shape = self._shape(leaf)
        if not leaf.is_floating_point() or (self.seed is None and not leaf.is_meta):
            rows = torch.arange(shape[0] if shape else 0, device=leaf.device)
            return leaf[rows % leaf.shape[0]] if shape and shape[0] != leaf.shape[0] else leaf
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        if leaf.is_meta or leaf.numel() < 2:
            return noise
        deviation, mean = torch.std_mean(leaf.detach().cpu().double())
        sound = bool(deviation.isfinite() and deviation > 0)
        return noise * deviation + mean if sound else noise


def described(inputs: Any, dtype: torch.dtype) -> Any:
    """Return a tuple or dict of arguments, in which shapes have become tensors without memory.

    Args:
        inputs: a tensor, a tuple, list or dict of tensors, or a shape.
        dtype: of the tensors that are given as shapes.

    Raises:
        ConvscopeError: none of these, a list of sizes, or one of its tensors is empty.
    """
    if isinstance(inputs, list) and _is_shape(tuple(inputs)):
        raise ConvscopeError(
            f"the list {inputs}", "a shape as a tuple, or a list of tensors", f"pass {tuple(inputs)}"
        )
    if _is_shape(inputs) or isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, str) or not isinstance(inputs, Mapping | Sequence):
        raise ConvscopeError(
            f"inputs of type {type(inputs).__name__}",
            "a tensor, a tuple or dict of tensors, or a shape such as (1, 3, 224, 224)",
            "pass one of these",
        )
    if isinstance(inputs, Mapping):
        made: Any = {str(name): _described(item, dtype) for name, item in inputs.items()}
    else:
        made = tuple(_described(item, dtype) for item in inputs)
    tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
    if not tensors or any(tensor.numel() == 0 for tensor in tensors):
        raise ConvscopeError(
            "inputs without any element", "at least one sample", "give a batch of one or more"
        )
    return made


def in_dtype(inputs: Any, dtype: torch.dtype) -> Any:
    """Return described inputs with their floating tensors in ``dtype``."""

    def recast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return tree_map(recast, inputs)


def given(inputs: Any) -> Iterator[Trial]:
    """Yield ways to try the inputs as they were given, small batches first."""
    if _num_samples(inputs) > MOST_SAMPLES:
        yield Trial(inputs, None, MOST_SAMPLES)
    yield Trial(inputs, None)


def random_like(inputs: Any, seed: int) -> Iterator[Trial]:
    """Yield ways to try random inputs of the given shape, small batches first."""
    for trial in given(inputs):
        yield Trial(inputs, seed, trial.batch, kind="random")


def of_other_size(inputs: Any, seed: int) -> Iterator[Trial]:
    """Yield ways to try other spatial sizes, if there are any."""
    batch = min(_num_samples(inputs), MOST_SAMPLES)
    sizes = [
        size
        for leaf in tree_leaves(inputs)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
        for size in leaf.shape[2:]
    ]
    if sizes:
        steps = (-32, 32) if min(sizes) >= 64 else (4, 1)
        yield from (Trial(inputs, seed, batch, growth, "other size") for growth in steps)


def of_other_batch(inputs: Any, seed: int) -> Iterator[Trial]:
    """Yield ways to try another number of samples, on which a network's code may depend; more come first."""
    num_samples = _num_samples(inputs)
    numbers = (min(num_samples, _FEW_SAMPLES) + 3, *(fewer for fewer in (3, 2, 1) if fewer < num_samples))
    yield from (Trial(inputs, seed, number, kind="other number") for number in numbers)


def _described(item: Any, dtype: torch.dtype) -> Any:
    if _is_shape(item):
        return torch.empty(tuple(item), dtype=dtype, device="meta")
    return item


def _is_shape(item: Any) -> bool:
    return isinstance(item, tuple) and bool(item) and all(type(size) is int for size in item)


def _num_samples(inputs: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    return tensors[0].shape[0] if tensors else 1

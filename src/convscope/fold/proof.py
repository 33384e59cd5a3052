"""Whether a change of a network leaves its function as it was: outputs before and after, compared.

In float64 a right fold differs by rounding, 1e-13 or less, and a wrong one by 1e-3 or more, so that a
threshold of 1e-9 separates them by orders of magnitude. Float32 separates less well; it serves where a
network doesn't run in float64.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.fold.trials import Trial, given, of_other_batch, of_other_size, random_like
from convscope.probe import probing

THRESHOLDS = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest relative error that passes, by the dtype of the comparison."""

# An output that is tiny beside the others is compared with this part of their size.
_FLOOR = 1e-6


class NotComparable(Exception):  # noqa: N818 - no error: a verdict
    """The network before the change didn't run on any of the trials."""


@dataclass(frozen=True)
class Comparison:
    """What the outputs of a network before and after a change have shown.

    Attributes:
        max_error: the largest over the trials of :func:`difference`'s first number.
        mean_error: the mean over the trials of its second.
        at: the largest relative error at each place, by its key.
        trials: the trials that were compared.
        failure: what went wrong in the run after the change, or "".
    """

    max_error: float
    mean_error: float
    at: dict[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    failure: str = ""

    def within(self, threshold: float) -> bool:
        """Whether no output and no place differs by more; NaN is more than anything."""
        return not self.failure and all(error <= threshold for error in (self.max_error, *self.at.values()))


@dataclass(frozen=True)
class Place:
    """A value that the change must not change: where to read it before, and where after.

    Attributes:
        key: its name in :attr:`Comparison.at`.
        before, after: operator addresses.
    """

    key: str
    before: str
    after: str


def compare(
    network: nn.Module,
    change: Callable[[nn.Module], None],
    inputs: Any,
    places: tuple[Place, ...],
    dtype: torch.dtype | None = None,
) -> Comparison:
    """Run a network on trials, change it in place, run it on the same trials, and compare.

    Args:
        network: a copy that may be changed.
        change: changes the network.
        inputs: as :func:`convscope.fold.trials.described` returns them.
        places: read in the first trial.
        dtype: of floating inputs and of new tensors; None leaves them as they were given.

    Raises:
        NotComparable: the network runs on none of the trials before the change.
    """
    with _running(network, {place.before: place.key for place in places}, dtype) as run:
        before = list(_runs(run, inputs))
    change(network)
    with _running(network, {place.after: place.key for place in places}, dtype) as run:
        try:
            after = [run(trial) for trial, _, _ in before]
        except Exception as error:
            return Comparison(float("inf"), float("inf"), failure=_sentence(error))
    old, new = before[0][2], after[0][1]
    missing = [place.key for place in places if place.key not in old or place.key not in new]
    if missing:
        return Comparison(float("inf"), float("inf"), failure=f"the run doesn't come by {missing[0]}")
    errors = [difference(y0, y) for (_, y0, _), (y, _) in zip(before, after, strict=True)]
    return Comparison(
        max_error=max(maximum for maximum, _ in errors),
        mean_error=sum(mean for _, mean in errors) / len(errors),
        at={key: difference([value], [new[key]])[0] for key, value in old.items()},
        trials=tuple(trial for trial, _, _ in before),
    )


def difference(before: list[Tensor], after: list[Tensor]) -> tuple[float, float]:
    """Return max|y − y₀| / max|y₀| and mean|y − y₀| / max|y₀|, the largest over lists of tensors.

    Infinite where shapes differ, or where one is NaN or infinite and the other isn't the same.
    """
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf"), float("inf")
    sizes = [_finite(tensor).abs().max().item() if tensor.numel() else 0.0 for tensor in before]
    floor = _FLOOR * max(sizes, default=0.0)
    maximum = mean = 0.0
    for y0, y, size in zip(before, after, sizes, strict=True):
        same = (y0 == y) | (y0.isnan() & y.isnan())
        apart = torch.where(same, 0.0, (y.double() - y0.double()).abs()).nan_to_num(
            nan=float("inf"), posinf=float("inf")
        )
        scale = max(size, floor) or 1.0
        if apart.numel():
            maximum = max(maximum, apart.max().item() / scale)
            mean = max(mean, apart.mean().item() / scale)
    return maximum, mean


_Values = dict[str, Tensor]
_Run = Callable[[Trial], tuple[list[Tensor], _Values]]


def _runs(run: _Run, inputs: Any) -> Iterator[tuple[Trial, list[Tensor], _Values]]:
    """The first trial of each kind on which a network runs, its outputs, and the values at addresses."""
    failure = ""
    num_runs = 0
    kinds = (given(inputs), random_like(inputs, 1), of_other_size(inputs, 2), of_other_batch(inputs, 3))
    for attempts in kinds:
        for trial in attempts:
            try:
                outputs, values = run(trial)
            except Exception as error:
                failure = failure or _sentence(error)
                continue
            num_runs += 1
            yield trial, outputs, values
            break
    if not num_runs:
        raise NotComparable(failure)


@contextlib.contextmanager
def _running(network: nn.Module, addresses: Mapping[str, str], dtype: torch.dtype | None) -> Iterator[_Run]:
    """A function that runs the network in evaluation mode; its first run also reads values, by their keys."""
    values: _Values = {}
    finished = False

    def keep(key: str) -> Callable[[Any, Any], None]:
        def reader(_: Any, result: Any) -> None:
            if not finished:
                values[key] = _first(result).detach().clone()

        return reader

    with probing(network) as probe, _default_dtype(dtype), torch.no_grad():
        for address, key in addresses.items():
            probe.read(address, keep(key))

        def run(trial: Trial) -> tuple[list[Tensor], _Values]:
            nonlocal finished
            args, kwargs = trial.call(_device(network), dtype)
            torch.manual_seed(0)
            outputs = network(*args, **kwargs)
            read, finished = {} if finished else dict(values), True
            return [tensor.detach().clone() for tensor in tensors_of(outputs)], read

        yield run


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return all tensors in a network's outputs: containers are walked, other objects by attribute."""
    tensors = []
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type):
            tensors += [item for item in tree_leaves(vars(leaf)) if isinstance(item, Tensor)]
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """New tensors are made in ``dtype``, so that constants in a network's code don't lose digits."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype or default)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def _device(network: nn.Module) -> torch.device:
    return next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))


def _first(result: Any) -> Tensor:
    tensor: Tensor = result[0] if isinstance(result, tuple | list) else result
    return tensor


def _finite(tensor: Tensor) -> Tensor:
    return tensor.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__

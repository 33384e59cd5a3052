"""Whether a change of a network leaves its function as it was: outputs before and after, compared.

In float64 a right fold differs by rounding, 1e-13 or less, and a wrong one by 1e-3 or more, so that a
threshold of 1e-9 separates them by orders of magnitude. Float32 separates less well; it serves where a
network doesn't run in float64.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.fold.layers.bordered import OtherSize
from convscope.fold.planning.plan import Place
from convscope.fold.proof.trials import Trial, given, of_other_batch, of_other_size, random_like
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
        at: the largest relative error at each place, by its address; infinite where a run comes by that the
            other one doesn't come by.
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

    def beyond(self, threshold: float) -> frozenset[str]:
        """Return the places which differ by more."""
        return frozenset(address for address, error in self.at.items() if not error <= threshold)


@dataclass(frozen=True)
class _Run:
    trial: Trial
    outputs: list[Tensor]
    values: dict[str, Tensor]


class Witness:
    """Runs of a network before its change, to compare runs after it with.

    Args:
        network: a copy that nobody changes.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
        addresses: of module calls whose results are read on the way; in the first trial whole, in the
            others here and there.
        dtype: of floating inputs and of new tensors; None leaves them as they were given.
        most: how many kinds of trials, of the four.

    Raises:
        NotComparable: the network runs on none of the trials, or its outputs are never finite.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        addresses: Sequence[str],
        dtype: torch.dtype | None = None,
        most: int = 4,
    ) -> None:
        self._dtype = dtype
        self._read = frozenset(addresses)
        with _running(network, addresses, dtype) as run:
            self._runs = list(_first_runs(run, inputs, most))

    def compare(self, changed: nn.Module, places: tuple[Place, ...]) -> Comparison:
        """Return what the same trials show of a network after the change.

        Args:
            changed: the network after the change.
            places: some of those that were read before, with the gauges that are expected there.
        """
        expected = {place.address: place for place in places if place.address in self._read}
        errors, at, tried = list[tuple[float, float]](), dict[str, float](), list[Trial]()
        with _running(changed, list(expected), self._dtype) as run:
            for before in self._runs:
                try:
                    after = run(before.trial, len(errors) > 0)
                except OtherSize:
                    continue  # the network is folded for one size, as its user wished
                except Exception as error:
                    trials = tuple(each.trial for each in self._runs)
                    return Comparison(float("inf"), float("inf"), at, trials, _sentence(error))
                tried.append(before.trial)
                errors.append(difference(before.outputs, after.outputs))
                for address, place in expected.items():
                    apart = _error_at(place, before.values.get(address), after.values.get(address))
                    at[address] = max(at.get(address, 0.0), apart)
        reached = {address for run in self._runs for address in run.values}
        at.update(dict.fromkeys(expected.keys() - reached, float("inf")))  # the copy runs something else
        return Comparison(
            max_error=max((maximum for maximum, _ in errors), default=float("inf")),
            mean_error=sum(mean for _, mean in errors) / max(len(errors), 1),
            at=at,
            trials=tuple(tried),
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


def _error_at(place: Place, before: Tensor | None, after: Tensor | None) -> float:
    """How far a value is from what its gauge says it is; infinite if only one run comes by it."""
    if before is None or after is None:
        return 0.0 if before is after else float("inf")
    scale, shift = (gauge.to(before.device) for gauge in (place.scale, place.shift))
    sizes = zip(scale.shape, shift.shape, before.shape, strict=False)
    if scale.dim() != before.dim() or not all({a, b} <= {1, size} for a, b, size in sizes):
        return 0.0  # it changes from position to position, of which there are others in this trial
    return difference([before * scale + shift], [after])[0]


_Runner = Callable[[Trial, bool], _Run]


def _first_runs(run: _Runner, inputs: Any, most: int) -> Iterator[_Run]:
    """The first trial of each kind on which a network runs."""
    failure = ""
    num_runs = 0
    kinds = (given(inputs), random_like(inputs, 1), of_other_size(inputs, 2), of_other_batch(inputs, 3))
    for attempts in kinds[:most]:
        for trial in attempts:
            try:
                made = run(trial, num_runs > 0)
            except Exception as error:
                failure = failure or _sentence(error)
                continue
            if not any(bool(tensor.isfinite().any()) for tensor in made.outputs):
                failure = failure or "none of its outputs is a finite number"
                continue
            num_runs += 1
            yield made
            break
    if not num_runs:
        raise NotComparable(failure)


@contextlib.contextmanager
def _running(network: nn.Module, addresses: Sequence[str], dtype: torch.dtype | None) -> Iterator[_Runner]:
    """A function that runs the network in evaluation mode and reads values at module calls."""
    values: dict[str, Tensor] = {}
    sampled = False

    def keep(address: Any, result: Any) -> None:
        if result is None:  # the module has failed
            return
        tensor = _first(result)
        values[str(address)] = _sample(tensor) if sampled else tensor.detach().clone()

    with probing(network) as probe, _default_dtype(dtype), torch.no_grad():
        for address in addresses:
            probe.at_module(address, keep)

        def run(trial: Trial, in_part: bool) -> _Run:
            nonlocal sampled
            sampled = in_part
            values.clear()
            args, kwargs = trial.call(_device(network), dtype)
            torch.manual_seed(0)
            outputs = network(*args, **kwargs)
            return _Run(trial, [tensor.detach().clone() for tensor in tensors_of(outputs)], dict(values))

        yield run


def _sample(tensor: Tensor) -> Tensor:
    """Some positions of a value, all of its channels."""
    if tensor.dim() < 3:
        return tensor.detach().clone()
    step = [1, 1, *(max(1, size // 4) for size in tensor.shape[2:])]
    return tensor.detach()[tuple(slice(None, None, each) for each in step)].clone()


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

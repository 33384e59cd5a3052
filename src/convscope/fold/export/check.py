"""Is what a file computes the original network? Outputs side by side, in the network's own dtype.

Own dtypes round, and differently in every program. How much this network's rounding can come to is measured:
its outputs in its own dtype against the same in float64. Up to thirty times that passes, and what is below
1e-4 always: right folds stay within it and wrong ones don't, over 90 networks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.preserved import preserved_rng
from convscope.fold.export.result import NotExportable
from convscope.fold.proof.differences import difference
from convscope.fold.proof.runs import tensors_of
from convscope.fold.proof.settle import copied
from convscope.fold.proof.trials import Trial

FACTOR = 30.0
FLOOR = 1e-4
_WITHOUT_YARDSTICK = 1e-3

Call = tuple[tuple[Any, ...], dict[str, Any]]
Runner = Callable[..., Any]
"""Runs what a file holds on a network's arguments; returns its outputs."""


@dataclass(frozen=True)
class Answers:
    """What the original network says to some trials.

    Attributes:
        calls: positional and keyword arguments of each.
        outputs: the tensors that it returns to each, in its own dtype.
        trials: their shapes, one text each.
        own_error: the largest difference to float64; None if it doesn't run in float64.
    """

    calls: tuple[Call, ...]
    outputs: tuple[list[Tensor], ...]
    trials: tuple[str, ...]
    own_error: float | None

    @property
    def allowed(self) -> float:
        """The largest difference that passes."""
        return _WITHOUT_YARDSTICK if self.own_error is None else max(FLOOR, FACTOR * self.own_error)

    def error_of(self, runner: Runner) -> float:
        """Return the largest difference of another program's answers; infinite where shapes differ.

        Raises:
            NotExportable: the program fails.
        """
        try:
            found = [outputs_of(runner, call) for call in self.calls]
        except NotExportable:
            raise
        except Exception as error:  # of whatever reads the file
            raise NotExportable.because(error) from error
        return max(difference(y0, y)[0] for y0, y in zip(self.outputs, found, strict=True))


def answers(original: nn.Module, trials: tuple[Trial, ...]) -> Answers:
    """Return what a network says to trials, in evaluation mode; it stays as it is.

    Raises:
        NotExportable: it fails.
    """
    network = copied(original).eval()
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    calls = tuple(trial.call(device) for trial in trials)
    try:
        outputs = tuple(outputs_of(network, call) for call in calls)
    except Exception as error:  # of the network's own code
        raise NotExportable.because(error) from error
    if not all(any(bool(tensor.isfinite().any()) for tensor in each) for each in outputs):
        raise NotExportable("none of its outputs is a finite number, so that there is nothing to compare")
    return Answers(
        calls,
        outputs,
        tuple(", ".join(trial.shapes()) for trial in trials),
        _own_error(network, [trial.call(device, torch.float64) for trial in trials], outputs),
    )


def outputs_of(run: Runner, call: Call) -> list[Tensor]:
    """Return the tensors that a program returns, on the CPU; the same random numbers in each run."""
    args, kwargs = call
    with torch.no_grad(), preserved_rng():
        torch.manual_seed(0)
        return [tensor.detach().cpu().clone() for tensor in tensors_of(run(*args, **kwargs))]


def _own_error(network: nn.Module, calls: list[Call], outputs: tuple[list[Tensor], ...]) -> float | None:
    """How far a network's outputs are from those in float64; it is in float64 afterwards."""
    try:
        with _doubled(network):
            exact = [outputs_of(network, call) for call in calls]
    except Exception:  # the network's own code, which may insist on another dtype
        return None
    error = max(difference(wide, own)[0] for wide, own in zip(exact, outputs, strict=True))
    return error if error < float("inf") else None


@contextmanager
def _doubled(network: nn.Module) -> Iterator[None]:
    default = torch.get_default_dtype()
    network.double()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)

"""In which order a loop's forward and backward passes come within an optimizer step.

A step is written as letters: ``F`` for a forward pass, ``B`` for a backward pass, ``Z`` where gradients were
set to zero between two forward passes. Several ``FB`` in a row without a ``Z`` accumulate gradients; ``FF``
are several inputs for one loss, as in siamese networks and critics.
"""

from collections import Counter
from collections.abc import Callable
from statistics import median_low

from torch.optim import Optimizer

_LONGEST = 600
_GAUGED = 6  # parameters
_STEADY = 0.6  # share of the steps that have to accumulate; the last of an epoch often has fewer batches


class Sequence:
    """The forward and backward passes of the current step, and kinds of past steps.

    Attributes:
        patterns: kinds of steps that were kept, and how many there were of each.
        closures: steps whose optimizer ran forward passes itself, more than one.
    """

    def __init__(self) -> None:
        self.patterns: Counter[str] = Counter()
        self.closures = self._in_step = 0
        self._letters: list[str] = []
        self._run = self._backward = -1
        self._stepping = False

    def forward(self, run: int, is_fresh: Callable[[], bool]) -> None:
        """Take down that a layer runs in a forward pass.

        Args:
            run: number of the pass.
            is_fresh: tells whether gradients are zero.
        """
        if run == self._run:
            return
        if "B" in self._letters and is_fresh():
            self._letters.append("Z")
        self._letters.append("F")
        del self._letters[_LONGEST:]
        self._in_step += self._stepping
        self._run = run

    def backward(self, number: int) -> None:
        """Take down a backward pass, known by its number."""
        if number != self._backward:
            self._letters.append("B")
            del self._letters[_LONGEST:]
            self._backward = number

    def step_begins(self) -> None:
        """Tell apart what an optimizer's closure runs."""
        self._stepping = True

    def step_ends(self, keep: bool) -> None:
        """Begin a new step, and keep the kind of the last one if asked to."""
        if self._in_step > 1:
            self.closures += 1
        elif keep and "F" in self._letters:
            self.patterns["".join(self._letters)] += 1
        self._letters.clear()
        self._run = self._backward = -1
        self._stepping = False
        self._in_step = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has run in the current step."""
        return not self._letters


class Gauge:
    """Some small parameters, which tell whether gradients have been set to zero since an optimizer's step."""

    def __init__(self, optimizer: Optimizer | None = None) -> None:
        groups = optimizer.param_groups if optimizer is not None else []
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        smallest = sorted(parameters, key=lambda parameter: parameter.numel())[:_GAUGED]
        self._parameters = [p for p in smallest if bool(p.grad.any())]

    def is_fresh(self) -> bool:
        """Return whether none of them has a gradient now, though they had; False if there are none."""
        left = any(p.grad is not None and bool(p.grad.any()) for p in self._parameters)
        return bool(self._parameters) and not left


def accumulated(patterns: dict[str, int]) -> int:
    """Return how many batches' gradients are usually accumulated in a step; 1 if they usually aren't.

    Example:
        >>> accumulated({"FBFBFBFB": 9, "FBFB": 1}), accumulated({"FFB": 10}), accumulated({"FFBFFB": 10})
        (4, 1, 2)
    """
    counts = {pattern: _accumulated(pattern) for pattern in patterns}
    several = [count for pattern, count in counts.items() for _ in range(patterns[pattern]) if count > 1]
    if len(several) < 2 or len(several) < _STEADY * sum(patterns.values()):
        return 1
    return median_low(several)


def _accumulated(pattern: str) -> int:
    """Batches of one step: as many forward passes before each backward pass, such as ``FFBFFB``."""
    last = pattern.rpartition("Z")[2].removesuffix("F" * len(pattern))
    groups = [group for group in last.split("B") if group]
    return len(groups) if len(set(groups)) == 1 and last.endswith("B") else 1

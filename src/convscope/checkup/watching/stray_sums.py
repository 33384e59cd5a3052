"""Sums over stray forward passes, and what kind they are by how they lie among the optimizer steps.

Passes that train nothing but come along with steady regularity, one or few per step, belong to the training:
a generator's images for its critic, a momentum encoder, the choice of hard examples. An evaluation comes
between stretches of training, many passes at once.
"""

from statistics import median_low

from torch import Tensor

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed.run import StrayCalls

Moves = dict[str, tuple[Tensor, Tensor]]
"""By layer: Δ running mean / σ and the logarithm of the running variance's growth, (C,) each, float64."""

_FEW = 8  # passes per step that a training's own may be, if they come in half of the steps
_STEADY, _ALWAYS = 0.5, 0.9  # share of the steps that they have to come in; if there are many of them
_FEWEST_STEPS = 3


class Strays:
    """Sums up how far a kind of forward passes has moved running statistics.

    Attributes:
        count, constant, with_gradients, before_steps, blocks, longest: see
            :class:`~convscope.checkup.observed.run.StrayCalls`.
    """

    def __init__(self) -> None:
        self.count = self.constant = self.with_gradients = self.before_steps = 0
        self.blocks = self.longest = 0
        self._moves: Moves = {}

    def add(self, moves: Moves, constant: bool, has_gradients: bool) -> None:
        """Add one forward pass."""
        self.count += 1
        self.constant += constant
        self.with_gradients += has_gradients
        self._add(moves)

    def join(self, other: "Strays") -> None:
        """Add what was summed up elsewhere."""
        if other.count:
            steps = (self.before_steps, other.before_steps) if self.count else (other.before_steps,)
            self.before_steps = min(steps)
        self.count += other.count
        self.constant += other.constant
        self.with_gradients += other.with_gradients
        self.blocks += other.blocks
        self.longest = max(self.longest, other.longest)
        self._add(other._moves)

    def found(self) -> StrayCalls:
        """Return what was found."""
        sizes = {
            path: (float(mean_C.abs().max()), float(variance_C.abs().max()))
            for path, (mean_C, variance_C) in self._moves.items()
        }
        if not sizes:
            return StrayCalls()
        worst = max(
            sizes, key=lambda path: max(sizes[path][0] / MEAN_TOLERANCE, sizes[path][1] / VARIANCE_TOLERANCE)
        )
        return StrayCalls(
            count=self.count,
            layers=tuple(sizes),
            shift=max(shift for shift, _ in sizes.values()),
            log_variance=max(growth for _, growth in sizes.values()),
            worst=worst,
            constant=self.constant,
            before_steps=self.before_steps,
            with_gradients=self.with_gradients,
            blocks=self.blocks,
            longest=self.longest,
        )

    def _add(self, moves: Moves) -> None:
        for path, (mean_C, variance_C) in moves.items():
            known = self._moves.get(path)
            mean_C, variance_C = (
                (mean_C, variance_C) if known is None else (mean_C + known[0], variance_C + known[1])
            )
            self._moves[path] = mean_C, variance_C


class Timeline:
    """Stray passes by the step that they lie in front of; memory doesn't grow with the steps.

    Steps with equally many passes are summed up together, those with more than 8 in doubling ranges.
    """

    def __init__(self) -> None:
        self._by_number: dict[int, Strays] = {}
        self._first = self._last = 0

    def add(self, block: Strays, step: int) -> None:
        """Add all stray passes that lay between a step and the next one."""
        if not block.count:
            return
        if not self._by_number:
            self._first = step
        self._last = max(step, self._last)
        block.blocks, block.longest, block.before_steps = 1, block.count, step
        number = block.count if block.count <= _FEW else 1 << (block.count - 1).bit_length()
        self._by_number.setdefault(number, Strays()).join(block)

    def copy(self) -> "Timeline":
        """Return a copy, to which may be added what isn't settled yet."""
        copied = Timeline()
        copied._first, copied._last = self._first, self._last
        for number, strays in self._by_number.items():
            copied._by_number[number] = Strays()
            copied._by_number[number].join(strays)
        return copied

    def told_apart(self, early: Strays) -> tuple[Strays, Strays, Strays]:
        """Return evaluations, passes that belong to the training, and what is left of the early ones.

        Args:
            early: passes before the first step. As many as come before every other step belong to those.
        """
        evaluations, own = Strays(), Strays()
        usual = self._usual()
        for number, strays in sorted(self._by_number.items()):
            (own if number <= 2 * usual else evaluations).join(strays)
        if early.count > usual:
            return evaluations, own, early
        own.join(early)
        return evaluations, own, Strays()

    def _usual(self) -> int:
        """How many passes come with a step, steadily; 0 if they don't."""
        numbers = [number for number, strays in self._by_number.items() for _ in range(strays.blocks)]
        few = [number for number in numbers if number <= _FEW]
        num_steps = self._last - self._first + 1
        steady = few if len(few) >= _STEADY * num_steps else numbers
        fewest = _STEADY if steady is few else _ALWAYS
        if len(steady) < max(_FEWEST_STEPS, fewest * num_steps):
            return 0
        return median_low(steady)

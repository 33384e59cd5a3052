"""What is compared: arms, each a network with its settings, and the seeds that every arm is run with."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.train.config import RESUMABLE, TrainConfig

RUNS = "runs"
_MOST_SEEDS = 10_000
_LONGEST = 150  # bytes of a folder's name; file systems take 255, less where they encrypt
NOT_OF_THE_ARM = (RESUMABLE - {"epochs", "evaluate_every"}) | {"seed"}
"""Settings that don't make an arm another one: the seed is each run's, the others decide no number."""


@dataclass(frozen=True)
class Arm:
    """One row of the table: a network and how it is trained.

    Attributes:
        name: readable and stable: made of what was chosen for the arm, such as ``"batch, lr 0.1"``.
        network: its reference.
        options: keywords of :func:`convscope.load` for it.
        config: its settings; each run puts its own seed in.
    """

    name: str
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    config: TrainConfig = field(default_factory=TrainConfig)

    @property
    def folder(self) -> str:
        """The name of its folder.

        Example:
            >>> Arm("batch, lr 0.1", "zfnet").folder
            'batch-lr-0.1'
        """
        plain = re.sub(r"[^\w.+]+", "-", self.name).strip("-.") or "arm"
        if len(plain.encode(errors="replace")) <= _LONGEST:
            return plain
        digest = hashlib.blake2b(self.name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        short = plain.encode(errors="replace")[:_LONGEST].decode(errors="ignore")
        return f"{short}-{digest}"

    def identity(self) -> dict[str, Any]:
        """Return what makes the arm what it is, as JSON's types."""
        settings = {
            name: value
            for name, value in dataclasses.asdict(self.config).items()
            if name not in NOT_OF_THE_ARM
        }
        return {"network": self.network, "options": _listed(dict(self.options)),
                "settings": _listed(settings)}  # fmt: skip


@dataclass(frozen=True)
class PlannedRun:
    """One run of the table.

    Attributes:
        arm: which arm.
        seed: of initial weights, order, augmentation and dropout; the same in every arm.
        folder: where its files go.
    """

    arm: Arm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Arm and seed, for readers."""
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Table:
    """All that is compared.

    Attributes:
        data: reference of the images, the same split of them in every run.
        arms: the rows; their names and folders differ.
        seeds: every arm is run once with each.
        target: error (0 to 1) to whose first reaching steps are counted; None: the median over seeds of
            the lowest error that the baseline reaches.
        baseline: name of the arm that others are compared with; empty: the first.
        image_size: height and width of the images, in pixels, where the network's input isn't to say it
            (``crop`` cuts windows of larger images); None: as the network's input.

    Raises:
        ConvscopeError: no arm, no seed, two arms of one name, an unknown baseline or an impossible target.

    Example:
        >>> table = Table("digits", (Arm("zfnet", "zfnet"),), seeds=(0, 1))
        >>> [str(run.folder) for run in table.runs("out")]
        ['out/runs/zfnet/seed-0', 'out/runs/zfnet/seed-1']
    """

    data: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: float | None = None
    baseline: str = ""
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConvscopeError("a table without arms", "at least one", "give choices, or arms")
        self._check_names()
        _check_seeds(self.seeds)
        if self.target is not None and not (_is_number(self.target) and 0 <= self.target < 1):
            raise ConvscopeError(
                f"target={self.target!r}", "an error from 0 to below 1", "write 5 % of images wrong as 0.05"
            )
        if self.baseline:
            self.arm(self.baseline)

    def _check_names(self) -> None:
        """Refuse arms whose folders would be one, also where upper and lower case are the same."""
        by_folder: dict[str, str] = {}
        for arm in self.arms:
            folder = arm.folder.casefold()
            if folder in by_folder:
                other = by_folder[folder]
                clash = f"arms {other!r} and {arm.name!r}, which would share the folder {arm.folder!r}"
                raise ConvscopeError(
                    f"two arms {other!r}" if other == arm.name else clash,
                    "names that differ in their letters or digits",
                    "rename one of them",
                )
            by_folder[folder] = arm.name

    def arm(self, name: str) -> Arm:
        """Return the arm of a name.

        Raises:
            ConvscopeError: there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_arm(name, (arm.name for arm in self.arms))

    @property
    def base(self) -> Arm:
        """The arm that others are compared with."""
        return self.arm(self.baseline) if self.baseline else self.arms[0]

    def runs(self, out: str | Path) -> tuple[PlannedRun, ...]:
        """Return the runs; all arms of the first seed come first, so that pairs become whole early."""
        return tuple(
            PlannedRun(arm, seed, Path(out) / RUNS / arm.folder / f"seed-{seed}")
            for seed in self.seeds
            for arm in self.arms
        )


def as_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds that a number of them or a list of them means.

    Raises:
        ConvscopeError: it is neither.

    Example:
        >>> as_seeds(3), as_seeds([7, 9])
        ((0, 1, 2), (7, 9))
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= _MOST_SEEDS:
        return tuple(range(seeds))
    if isinstance(seeds, list | tuple | range):
        _check_seeds(tuple(seeds))
        return tuple(seeds)
    raise _wrong_seeds(seeds)


def _check_seeds(seeds: tuple[Any, ...]) -> None:
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise _wrong_seeds(seeds)


def _wrong_seeds(seeds: Any) -> ConvscopeError:
    expected = f"how many (from 1 to {_MOST_SEEDS:,}), or a list of different whole numbers from 0"
    return ConvscopeError(f"seeds={seeds!r}", expected, "five seeds or more can establish a sign")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def unknown_arm(name: str, names: Iterable[str]) -> ConvscopeError:
    """Return what is to be raised of an arm that there isn't: the names that there are, and the nearest."""
    known = list(names)
    told = ", ".join(map(repr, known))
    return ConvscopeError(f"arm {name!r}", f"one of {told}", nearest(name, known, "correct the name"))

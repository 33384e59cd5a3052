"""What a report is asked for: the settings, and who is told how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class ReportConfig:
    """How the network of a report is built, trained and looked at.

    The defaults suit a demonstration of a few minutes on two cores: narrow networks on small images.

    Attributes:
        size: side of the images in pixels; None: 96 for AlexNet and ZFNet when they are trained here, the
            network's own size otherwise.
        width: factor on the channels of AlexNet and ZFNet, where they are trained here.
        epochs: passes over the training images, which are shifted and, where that keeps their class,
            mirrored at random.
        batch_size: images in a training step.
        learning_rate: the highest one; the same with and without the normalisation.
        per_class: at most so many images a class; None: all.
        seed: of weights, images and their order.
        top: strongest images of a unit in the gallery.
        train: whether to train; None: unless a module or a file of weights is given.
        repeats: timed passes of the network before and after folding.

    Raises:
        ConvscopeError: a setting is out of range.
    """

    size: int | None = None
    width: float = 0.25
    epochs: int = 12
    batch_size: int = 50
    learning_rate: float = 0.01
    per_class: int | None = None
    seed: int = 0
    top: int = 9
    train: bool | None = None
    repeats: int = 20

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("batch_size", 2), ("epochs", 1), ("top", 1), ("repeats", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConvscopeError(f"{name}={value!r}", f"a number from {least}", "change that setting")


def with_settings(config: ReportConfig | None, settings: dict[str, Any]) -> ReportConfig:
    """Return the settings with some of them replaced.

    Raises:
        ConvscopeError: there is no setting of that name, or a value is out of range.

    Example:
        >>> with_settings(None, {"epochs": 3}).epochs
        3
    """
    known = [field.name for field in fields(ReportConfig)]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ConvscopeError(
                f"unknown report setting {name!r}",
                f"one of {', '.join(known)}",
                f"try {near[0]}=" if near else "leave it out",
            )
    return replace(config or ReportConfig(), **settings)


@dataclass(frozen=True)
class Stage:
    """How far a report is.

    Attributes:
        number: of the stage, from 1.
        total: number of stages.
        name: what is done.
        detail: how far that is; empty at its beginning.
        share: of that stage's work, from 0 to 1.
    """

    number: int
    total: int
    name: str
    detail: str = ""
    share: float = 0.0


Watcher = Callable[[Stage], None]
"""Is told of each stage's beginning, and now and then of its course; called often, so it returns quickly."""


class Stages:
    """Counts stages and tells the watcher.

    Args:
        names: of the stages, in order.
        watcher: who is told; None: nobody.
    """

    def __init__(self, names: tuple[str, ...], watcher: Watcher | None) -> None:
        self._names = names
        self._watcher = watcher
        self._number = 0

    def begin(self, name: str) -> None:
        """Say that a stage begins."""
        self._number = self._names.index(name) + 1
        self.tell("", 0.0)

    def tell(self, detail: str, share: float) -> None:
        """Say how far the stage is."""
        if self._watcher is not None:
            stage = Stage(self._number, len(self._names), self._names[self._number - 1], detail, share)
            self._watcher(stage)

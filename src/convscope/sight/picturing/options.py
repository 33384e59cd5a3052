"""What of a gallery is rarely chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from convscope.core.errors import ConvscopeError
from convscope.sight.picturing.origin import Origin


@dataclass(frozen=True)
class Course:
    """How far a gallery is.

    Attributes:
        stage: ``"scan"``: all images are looked at; ``"projections"``: the winners, a second time.
        done: images that this process has looked at, an interrupted run's among them.
        total: how many it will have looked at in the end; None if nobody knows.
        working: the folder where what is done is kept until the gallery is whole.
    """

    stage: Literal["scan", "projections"]
    done: int
    total: int | None
    working: str


@dataclass(frozen=True)
class GalleryOptions:
    """How a gallery is made.

    Args:
        statistics: collect minima, means and active positions of all units too; without them the first look
            costs little more than the network's own runs.
        judge: of how many units of a layer scores are measured, at their strongest example: ``"all"``, or
            a number; 0 for none, which is two to three times as fast in deep networks.
        progress: is told how far the gallery is.
        origin: what it is made of, for the top of its page; None: the class of the model, without a date, so
            that the same call writes the same files.
    """

    statistics: bool = True
    judge: Literal["all"] | int = "all"
    progress: Callable[[Course], object] | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        is_number = isinstance(self.judge, int) and not isinstance(self.judge, bool) and self.judge >= 0
        if not is_number and self.judge != "all":
            raise ConvscopeError(f"judge={self.judge!r}", "'all', or how many units of a layer", "0 for none")

    @property
    def num_judged(self) -> int | None:
        """How many units of a layer are judged; None for all."""
        return self.judge if isinstance(self.judge, int) else None

    def tell(self, course: Course) -> None:
        """Tell how far the gallery is."""
        if self.progress is not None:
            self.progress(course)

"""Which transformations are measured, on how many images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import get_args

from convscope.core.errors import ConvscopeError
from convscope.sight.transforming.transformation import Border, Kind, Transformation

TRANSLATIONS = 1 / 4
"""Of the image's height: how far it is moved by default; Zeiler and Fergus move 224 pixels by up to 60."""


@dataclass(frozen=True)
class InvariancePlan:
    """The points of the curves.

    Attributes:
        translation: pixels; None: 0, ±1, ±2, ±4 and so on up to a quarter of the image's height. Empty: no
            such curve.
        scale: factors.
        rotation: degrees, counter-clockwise as shown.
        direction: (y, x) that translations go; downwards by default, as Zeiler and Fergus have it.
        border: what comes in at the border; see :data:`Border`.
        num_images: how many images at most, evenly spaced; None: all of them.
        progress: called with the number of images done, and of all if that is known.
    """

    translation: tuple[float, ...] | None = None
    scale: tuple[float, ...] = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)
    rotation: tuple[float, ...] = tuple(range(0, 360, 30))
    direction: tuple[float, float] = (1.0, 0.0)
    border: Border = "reflect"
    num_images: int | None = 32
    progress: Callable[[int, int | None], object] | None = None

    def steps(self, size: tuple[int, int]) -> dict[Kind, tuple[Transformation, ...]]:
        """Return the transformations for images of a size, by kind, amounts ascending.

        Raises:
            ConvscopeError: an amount isn't a finite number, or a factor isn't above 0; a translation goes
                further than the image; there are no amounts at all; an unknown border or direction.

        Example:
            >>> [step.amount for step in InvariancePlan().steps((16, 16))["translation"]]
            [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
        """
        self._check_direction()
        self._check(size)
        translation = _doubling(size[0] * TRANSLATIONS) if self.translation is None else self.translation
        amounts: dict[Kind, tuple[float, ...]] = {
            "translation": translation,
            "scale": self.scale,
            "rotation": self.rotation,
        }
        return {
            kind: tuple(Transformation(kind, float(amount), self.direction) for amount in sorted(set(found)))
            for kind, found in amounts.items()
            if found
        }

    def _check(self, size: tuple[int, int]) -> None:
        for name, amounts in (
            ("translation", () if self.translation is None else self.translation),
            ("scale", self.scale),
            ("rotation", self.rotation),
        ):
            if not isinstance(amounts, Sequence) or isinstance(amounts, str):
                raise ConvscopeError(
                    f"{name}={amounts!r}", "several finite numbers, as a tuple", f"{name}=(1, 2), say"
                )
            for amount in amounts:
                if not isinstance(amount, Real) or not math.isfinite(amount):
                    raise ConvscopeError(f"{name} by {amount!r}", "finite numbers", "leave it out")
        if self.translation is not None and not (self.translation or self.scale or self.rotation):
            raise ConvscopeError("no transformations", "amounts of one kind at least", "give some")
        if any(not factor >= 0.05 for factor in self.scale):
            raise ConvscopeError(f"scale={self.scale}", "factors from 0.05", "1 leaves the image as it is")
        furthest = max((abs(a) for a in self.translation or ()), default=0) * max(map(abs, self.direction))
        if furthest >= min(size):
            raise ConvscopeError(
                f"a translation by {furthest:g} pixels of images of {size[0]} × {size[1]}",
                "less than the image's side",
                "move it less far",
            )
        if self.border not in get_args(Border):
            raise ConvscopeError(
                f"border={self.border!r}", f"one of {', '.join(get_args(Border))}", "choose one"
            )
        if self.num_images is not None and (not isinstance(self.num_images, int) or self.num_images < 1):
            raise ConvscopeError(
                f"num_images={self.num_images!r}", "a whole number from 1, or None", "32, say"
            )

    def _check_direction(self) -> None:
        given = self.direction
        is_pair = isinstance(given, Sequence) and len(given) == 2 and all(isinstance(d, Real) for d in given)
        if not is_pair or not all(map(math.isfinite, given)) or not any(given):
            raise ConvscopeError(f"direction={given!r}", "(y, x), not both 0", "(1, 0) is downwards")


def _doubling(furthest: float) -> tuple[float, ...]:
    steps = [float(2**power) for power in range(int(math.log2(max(furthest, 1))) + 1)]
    return (*(-step for step in reversed(steps)), 0.0, *steps)

"""How an image is occluded: the window, its colour and its places."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError

Colour = Literal["mean", "zero"] | tuple[float, ...]


@dataclass(frozen=True)
class OcclusionPlan:
    """What is slid over the image, and how.

    Zeiler and Fergus slide a grey square; they state neither its size nor its step. Grey is here the mean
    colour of the image itself by default, as for the masks of projections' scores: it lies within the image's
    own range of colours whatever the network's input is normalised by. Zero is the data's mean colour for
    networks whose inputs had it taken away, and black for others.

    Attributes:
        window: side of the square in pixels, or (height, width); None: a seventh of the image's shorter side,
            which is 32 of 224.
        stride: step in pixels, or (vertical, horizontal); None: half the window.
        colour: ``"mean"`` (of the image), ``"zero"``, or a number for each channel, as the network gets it.
        overhang: whether windows may hang over the border. True: their centres are spread evenly over the
            whole image, so that the maps reach to its border. False: all lie inside; a last one is added
            flush with the border where the step doesn't reach it.
        batch_size: windows that the network gets at once.
        reuse: whether to compute only what the window changes, where that saves work and gives the same.
        progress: called with the number of windows done, and of all.
    """

    window: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None
    colour: Colour = "mean"
    overhang: bool = True
    batch_size: int = 32
    reuse: bool = True
    progress: Callable[[int, int], object] | None = None

    def window_for(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the window for an image of a size.

        Raises:
            ConvscopeError: it isn't whole numbers from 1, or is larger than the image.

        Example:
            >>> OcclusionPlan().window_for((224, 300)), OcclusionPlan(window=(3, 5)).window_for((7, 7))
            ((32, 32), (3, 5))
        """
        window = _pair(max(1, round(min(size) / 7)) if self.window is None else self.window, "window")
        if window[0] > size[0] or window[1] > size[1]:
            raise ConvscopeError(
                f"a window of {window[0]} × {window[1]} pixels on an image of {size[0]} × {size[1]}",
                "one that isn't larger than the image",
                "choose a smaller window, or a larger image",
            )
        return window

    def stride_for(self, window: tuple[int, int]) -> tuple[int, int]:
        """Return the step (vertical, horizontal) for a window.

        Raises:
            ConvscopeError: it isn't whole numbers from 1.
        """
        halves = (max(1, window[0] // 2), max(1, window[1] // 2))
        return halves if self.stride is None else _pair(self.stride, "stride")

    def fill(self, image: Tensor) -> Tensor:
        """Return the colour (c, 1, 1) for an image (1, c, h, w), in its dtype.

        Raises:
            ConvscopeError: it isn't one of the words, nor a finite number for each channel.
        """
        channels = image.shape[1]
        if self.colour == "mean":
            return image[0].double().mean(dim=(1, 2)).to(image.dtype)[:, None, None]
        if self.colour == "zero":
            return image.new_zeros(channels, 1, 1)
        is_numbers = isinstance(self.colour, tuple | list) and len(self.colour) == channels
        if not is_numbers or not all(isinstance(c, int | float) and isfinite(c) for c in self.colour):
            raise ConvscopeError(
                f"colour {self.colour!r} for an image of {channels} channels",
                f"'mean', 'zero', or {channels} finite numbers on the scale of the network's input",
                "give a number for each channel",
            )
        return torch.tensor(self.colour, dtype=torch.float64).to(image)[:, None, None]

    def checked_batch_size(self) -> int:
        """Return the batch size.

        Raises:
            ConvscopeError: it isn't a whole number from 1.
        """
        if not _is_count(self.batch_size):
            raise ConvscopeError(f"batch_size={self.batch_size!r}", "a whole number from 1", "32, say")
        return int(self.batch_size)


def _pair(setting: object, name: str) -> tuple[int, int]:
    sizes = tuple(setting) if isinstance(setting, tuple | list) else (setting, setting)
    if len(sizes) != 2 or not all(_is_count(size) for size in sizes):
        raise ConvscopeError(
            f"{name}={setting!r}", "a whole number of pixels from 1, or (height, width)", "choose another"
        )
    return int(sizes[0]), int(sizes[1])


def _is_count(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= 1

"""What if the first layer had another stride, or smaller filters?

The stride is exact: a strided convolution is the dense one, subsampled, so its filters stay what they are.
A smaller kernel is the middle of the filters: frequencies in cycles per pixel stay, which resampling the
filters would change; what is cut off is told as a share of their energy, and training would use the rest of
the budget otherwise. So these rows say how much a design *can* keep, not what a network trained with it does.
"""

from typing import Any

import torch
from torch import Tensor

from convscope.probe import Probe, Visit
from convscope.sight.stems.aliasing import Aliased, Energies, spread
from convscope.sight.stems.diagnosis import WhatIf
from convscope.sight.stems.response import Responses, responses
from convscope.sight.stems.spectrum import Power, Stride, is_resolved, power
from convscope.sight.stems.strided import Strided

STRIDES: tuple[Stride, ...] = ((1, 1), (2, 2), (4, 4))
KERNELS = (11, 7, 5, 3)


class Redesigns:
    """Other strides and kernels of the first convolution, gathered in runs on single images.

    Args:
        own: the convolution as it is.
        first: its dense runs, which tell the images to look at.
        image_size: (height, width) of its input.
    """

    def __init__(self, own: Strided, first: Aliased, image_size: tuple[int, int]) -> None:
        self.own, self.first, self.image_size = own, first, image_size
        self.strides = tuple(dict.fromkeys((*STRIDES, own.stride)))
        smaller = [size for size in KERNELS if size < max(own.kernel)]
        self.kernels = [own.kernel, *dict.fromkeys(_least(own.kernel, size) for size in smaller)]
        self.energies = {
            (kernel, stride): Energies(own.num_channels) for kernel in self.kernels for stride in self.strides
        }
        self.sizes: dict[tuple[int, int], tuple[int, int]] = {}
        first.listeners.append(lambda found, channels: self._add(own.kernel, found, channels))

    def watch(self, probe: Probe, image: Any) -> None:
        """Let the filters be run with smaller kernels where the network comes by the convolution."""

        def at_convolution(visit: Visit, _: Any) -> None:
            if image() in self.first.wanted:
                for kernel in self.kernels[1:]:
                    self._run(kernel, visit.args[0], visit.args[1])

        probe.read(self.own.address, at_convolution)

    def rows(self, weight: Tensor) -> tuple[tuple[WhatIf, ...], tuple[WhatIf, ...]]:
        """Return the rows of the kernel as it is, and those of smaller ones."""
        rows = [self._row(kernel, stride, weight) for kernel in self.kernels for stride in self.strides]
        return tuple(rows[: len(self.strides)]), tuple(rows[len(self.strides) :])

    def _run(self, kernel: tuple[int, int], images: Tensor, weight: Tensor) -> None:
        def use(dense: Tensor, channels: slice) -> None:
            self._add(kernel, power(dense), channels)

        _with(self.own, kernel).dense(images, middle(weight, kernel), use)

    def _add(self, kernel: tuple[int, int], found: Power, channels: slice) -> None:
        self.sizes[kernel] = found.size
        for stride in self.strides:
            self.energies[kernel, stride].add(found, stride, channels)

    def _row(self, kernel: tuple[int, int], stride: Stride, weight: Tensor) -> WhatIf:
        own, other = self.own, _with(self.own, kernel)
        cut = middle(weight, kernel).double()
        found = spread(self.energies[kernel, stride].shares) if kernel in self.sizes else None
        size = _map_size(other, stride, self.image_size)
        work, now = (
            area[0] * area[1] * window[0] * window[1]
            for area, window in ((size, kernel), (own.map_size, own.kernel))
        )
        resolved = kernel in self.sizes and is_resolved(self.sizes[kernel], stride)
        energy = float(weight.double().square().sum())
        return WhatIf(
            stride=stride,
            aliased_share=found.median if found and resolved else None,
            kernel=kernel,
            kept_energy=float(cut.square().sum()) / energy if energy else 1.0,
            covered=_covered(responses(cut), stride),
            map_size=size,
            macs_ratio=work / now,
        )


def middle(weight: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Return the middle of filters; the extra row or column of an odd rest is cut off at the end.

    Example:
        >>> middle(torch.arange(5.0).expand(1, 1, 1, 5), (1, 3)).tolist()
        [[[[1.0, 2.0, 3.0]]]]
    """
    top, left = ((length - size) // 2 for length, size in zip(weight.shape[2:], kernel))
    return weight.detach()[:, :, top : top + kernel[0], left : left + kernel[1]].contiguous()


def _with(own: Strided, kernel: tuple[int, int]) -> Strided:
    """The convolution with a smaller kernel, and less padding, so that positions stay where they are."""
    padding = [
        max(0, pad - step * ((length - size) // 2))
        for pad, step, length, size in zip(own.padding, own.dilation, own.kernel, kernel)
    ]
    return Strided(**{**vars(own), "kernel": kernel, "padding": (padding[0], padding[1])})


def _map_size(operator: Strided, stride: Stride, image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        (size + 2 * pad - step * (length - 1) - 1) // jump + 1
        for size, pad, step, length, jump in zip(
            image_size, operator.padding, operator.dilation, operator.kernel, stride
        )
    )
    return height, width


def _covered(found: Responses, stride: Stride) -> float:
    known = found.peak.isfinite()
    inside = (found.peak_axes <= 0.5 / torch.tensor(stride).double() + 1e-9).all(1)
    return float(inside[known].double().mean()) if bool(known.any()) else 0.0


def _least(kernel: tuple[int, int], size: int) -> tuple[int, int]:
    return min(kernel[0], size), min(kernel[1], size)

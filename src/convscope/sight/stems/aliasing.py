"""Every strided operator run dense on some images, in the network's own runs: what it folds.

Limits: an operator whose dense maps cost much is run on fewer of the images (:data:`MACS`); maps too small
for the window have no share (:func:`~convscope.sight.stems.spectrum.is_resolved`).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.probe import Probe, Visit
from convscope.sight.stems.pointwise import Chain
from convscope.sight.stems.response import share_beyond
from convscope.sight.stems.spectrum import Power, is_resolved, power
from convscope.sight.stems.strided import Strided
from convscope.sight.stems.strides import Aliasing, Spread

MACS = 4 * 10**10
"""What one operator may spend on its dense maps."""
NUM_IMAGES = 16
"""How many images operators behind the first convolution are run on."""


class Energies:
    """Sums of channels' energies, and of what lies beyond."""

    def __init__(self, num_channels: int) -> None:
        self.total, self.beyond = (torch.zeros(num_channels, dtype=torch.float64) for _ in range(2))

    def add(self, found: Power, stride: tuple[int, int], channels: slice) -> None:
        """Take some channels' energy into account."""
        self.total[channels] += found.total()
        self.beyond[channels] += found.beyond(stride)

    @property
    def shares(self) -> Float[Tensor, " o"]:
        """Each channel's share; NaN for channels without energy."""
        return self.beyond / self.total


class Aliased:
    """What one operator folds, gathered in runs on single images.

    Args:
        operator: the strided one.
        chain: behind a convolution; None for a pool.
        num_images: how many there will be.
        most: how many of them to look at, evenly spaced.

    Attributes:
        listeners: are told the energies of some channels' dense maps of an image.
    """

    def __init__(
        self, operator: Strided, chain: Chain | None, num_images: int, most: int = NUM_IMAGES
    ) -> None:
        self.operator, self.chain = operator, chain
        affordable = max(1, min(most, MACS // max(1, operator.dense_macs)))
        step = -(-num_images // min(num_images, affordable))
        self.wanted = frozenset(range(0, num_images, step))
        self.plain, self.activated, self.unactivated, self.blurred = (
            Energies(operator.num_channels) for _ in range(4)
        )
        self.weight: Tensor | None = None
        self.size: tuple[int, int] = (0, 0)
        self.num_images = 0
        self.listeners: list[Callable[[Power, slice], None]] = []
        self._before: Tensor | None = None

    def watch(self, probe: Probe, image: Callable[[], int]) -> None:
        """Let the operator be run dense where the network comes by, for the images that are wanted.

        Args:
            probe: of the runs to come, on one image each.
            image: tells which one.
        """

        def at_operator(visit: Visit, _: Any) -> None:
            if image() in self.wanted:
                self._look(visit)

        def at_activation(visit: Visit) -> Any:
            if image() in self.wanted:
                self._before = visit.args[0].detach().clone()  # it may work in place
            return visit.run()

        probe.read(self.operator.address, at_operator)
        if self.operator.activation:
            probe.around(self.operator.activation, at_activation)

    def result(self) -> Aliasing:
        """Return what was found."""
        operator = self.operator
        is_pool = operator.kind != "convolution"
        share = spread(self.plain.shares)
        resolved = is_resolved(self.size, operator.stride)
        reason = (
            ""
            if share and resolved
            else "its maps have no energy but their mean"
            if resolved
            else f"dense maps of {self.size[0]}×{self.size[1]} are too small for a spectrum"
        )
        shown = reason == ""
        activated, unactivated = spread(self.activated.shares), spread(self.unactivated.shares)
        return Aliasing(
            name=operator.name,
            address=operator.address,
            kind=operator.kind,
            kernel=operator.kernel,
            stride=operator.stride,
            share=share if shown else None,
            activated=(share if is_pool and unactivated else activated) if shown else None,
            unactivated=(unactivated if is_pool else share if activated else None) if shown else None,
            blurred=spread(self.blurred.shares) if shown else None,
            filter_share=self._filter_share(),
            num_images=self.num_images,
            reason=reason,
        )

    def _look(self, visit: Visit) -> None:
        is_pool = self.operator.kind != "convolution"
        self.weight = None if is_pool else visit.args[1].detach()
        pointwise = self.chain.pointwise() if self.chain else None
        self.num_images += 1

        def use(dense: Tensor, channels: slice) -> None:
            self.size = (dense.shape[2], dense.shape[3])
            found, stride = power(dense), self.operator.stride
            self.plain.add(found, stride, channels)
            self._add_blurred(found, channels)
            for listener in self.listeners:
                listener(found, channels)
            if pointwise is not None and pointwise.activation is not None:
                self.activated.add(power(pointwise.activated(dense, channels)), stride, channels)

        self.operator.dense(visit.args[0], self.weight, use)
        if is_pool and self._before is not None:
            self.operator.dense(
                self._before,
                None,
                lambda dense, channels: self.unactivated.add(power(dense), self.operator.stride, channels),
            )
        self._before = None

    def _add_blurred(self, found: Power, channels: slice) -> None:
        self.blurred.add(found.blurred(self.operator.stride), self.operator.stride, channels)

    def _filter_share(self) -> Spread | None:
        operator = self.operator
        if operator.kind == "max-pool":
            return None
        weight = torch.ones(1, 1, *operator.kernel) if self.weight is None else self.weight
        return spread(share_beyond(weight, operator.stride, operator.dilation))


def spread(shares: Float[Tensor, " o"]) -> Spread | None:
    """Return the median and the quartiles over the channels that have a share; None if none has.

    Example:
        >>> spread(torch.tensor([0.1, 0.2, 0.3, torch.nan], dtype=torch.float64)).median
        0.2
    """
    known = shares[shares.isfinite()]
    return Spread(*(float(known.quantile(q)) for q in (0.5, 0.25, 0.75))) if len(known) else None

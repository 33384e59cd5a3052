"""What strides do to a network's maps, as numbers: aliasing, shifts that maps don't follow, lattices."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Spread:
    """A number of many channels.

    Attributes:
        median, low, high: over the channels that have one; low and high are the quartiles.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Aliasing:
    """The energy that one strided operator folds into false frequencies.

    Attributes:
        name: its module's path, or its address.
        address: its operator's.
        kind: ``"convolution"``, ``"max-pool"`` or ``"average-pool"``.
        kernel, stride: (vertical, horizontal).
        share: of the dense map's energy beyond the new Nyquist frequency, over the channels: of a convolution
            before its normalisation and activation, of a pool as the network has it. None: ``reason``.
        activated: the same behind the activation that the operator commutes with: of a convolution, after
            the one that follows; of a pool, equal to ``share``, where an activation made its input.
        unactivated: before that activation: of a convolution, equal to ``share``; of a pool, pooling the
            values that the activation was given. None without an activation.
        blurred: the share behind a binomial blur of 2s − 1 taps between the dense map and the subsampling.
        filter_share: for white input; None for a max-pool, which isn't linear.
        num_images: that the shares rest on.
        reason: why there is no share; empty if there is one.
    """

    name: str
    address: str
    kind: Literal["convolution", "max-pool", "average-pool"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    share: Spread | None
    activated: Spread | None
    unactivated: Spread | None
    blurred: Spread | None
    filter_share: Spread | None
    num_images: int
    reason: str


@dataclass(frozen=True)
class LayerShift:
    """How one layer's maps follow a shift of the image by one pixel, down and to the right.

    Attributes:
        name, address: of the layer, and of the operator whose output was compared.
        stride: pixels between its positions.
        map_size: (height, width).
        distance: ‖shifted image's maps − maps shifted‖ / ‖maps‖ per channel, their median: 0 where the maps
            move with the image, √2 where they are unrelated. None: maps too small.
        change: the same without shifting the maps.
        sees_border: whether compared positions see the image's border, which doesn't move with it.
    """

    name: str
    address: str
    stride: tuple[int, int]
    map_size: tuple[int, int]
    distance: float | None
    change: float | None
    sees_border: bool


@dataclass(frozen=True)
class Shifts:
    """How the network follows shifts.

    Attributes:
        layers: in order.
        top1_pixel: share of images whose highest score stays the same under a shift by one pixel; None for
            networks without scores.
        top1_crops: share in which two random windows, up to ``furthest`` pixels apart along each axis, agree.
        furthest: in pixels.
        num_images: that these rest on.
    """

    layers: tuple[LayerShift, ...]
    top1_pixel: float | None
    top1_crops: float | None
    furthest: int
    num_images: int


@dataclass(frozen=True)
class Lattice:
    """Whether a spectrum has peaks on the lattice of a stride.

    Attributes:
        of: ``"maps"`` of the second convolution, or ``"projections"`` of its units to the image.
        address: of the units.
        period: (vertical, horizontal), in positions of the map, or in pixels.
        ratio: energy at multiples of 1/period over that around them, geometric mean; None: ``reason``.
        p_value: share of equally many other frequencies, chosen at random, with at least that ratio.
        reason: why there is no ratio.
    """

    of: Literal["maps", "projections"]
    address: str
    period: tuple[int, int]
    ratio: float | None
    p_value: float | None
    reason: str

"""Plans: everything about a network of AlexNet's family in numbers, and the arithmetic of its maps.

Sizes of feature maps are computed here, so that an input which is too small is refused before a single
weight is allocated. Modules are made from plans in :mod:`convscope.networks.stack`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args

from convscope.core.errors import ConvscopeError
from convscope.networks.initialise import Initialisation

Norm = Literal["none", "lrn", "batch", "layer", "instance", "group", "renorm", "ghost", "sync"]
Pooling = Literal["overlapping", "non-overlapping"]
Size = int | tuple[int, int]

NORMS: tuple[Norm, ...] = get_args(Norm)
# These subtract each channel's own mean, which takes a constant added to the channel away exactly. Layer and
# group norm subtract one mean for several channels, so there the bias still moves channels apart.
_REMOVES_BIAS: frozenset[Norm] = frozenset({"batch", "instance", "renorm", "ghost", "sync"})


REMOVABLE = frozenset({3, 4, 6, 7})
"""Numbers of the layers that a network can do without: no pool follows them."""


class LayerChoices(TypedDict, total=False):
    """Choices about single layers, which every builder takes as keywords.

    Attributes:
        in_channels: channels of the input; 3 if absent.
        pool: ``"overlapping"``, 3×3 with stride 2 as published (the default), or ``"non-overlapping"``, 2×2
            with stride 2.
        dropout: probability of the two dropouts in the classifier; 0.5 if absent.
        bias: whether convolutions have a bias. If absent they do, unless a norm follows that subtracts a
            channel's mean, and so the bias again: every kind of batch norm, and instance norm.
        init: ``"kaiming"`` (the default), ``"published"`` or ``"published-stem"``; see
            :mod:`convscope.networks.initialise`.
        init_scale: factor of all initial weights, biases excepted; 1 if absent.
        hidden: widths of fc6 and fc7 before ``width`` scales them.
        removed: numbers of layers to leave out, of 3, 4, 6 and 7, as in Zeiler and Fergus's table 3.
    """

    in_channels: int
    pool: Pooling
    dropout: float
    bias: bool
    init: Initialisation
    init_scale: float
    hidden: tuple[int, int]
    removed: tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """One square convolution of a plan, and whether a max-pool follows.

    Attributes:
        channels: number of output channels.
        kernel: side of the kernel, in pixels.
        stride: distance of neighbouring windows, in pixels.
        padding: zeros added on each side, in pixels.
        groups: number of groups of channels that don't see one another.
        pooled: whether a max-pool follows.
        lrn: whether local response normalisation follows where ``norm="lrn"``.
        published_bias: the bias that the paper starts it with.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    pooled: bool = False
    lrn: bool = False
    published_bias: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything about one network of this family.

    Attributes:
        name: what error messages call it.
        convolutions: the five convolutions.
        hidden: widths of fc6 and fc7.
        num_classes: number of outputs of fc8.
        input_size: height and width of the input, in pixels.
        norm: which normalisation follows the convolutions.
        in_channels: see :class:`LayerChoices`.
        pool: see :class:`LayerChoices`.
        dropout: see :class:`LayerChoices`.
        bias: see :class:`LayerChoices`; None: as the normalisation needs it.
        init: see :class:`LayerChoices`.
        init_scale: see :class:`LayerChoices`.
        removed: see :class:`LayerChoices`.
        published_hidden_bias: the bias that the paper starts fc6 and fc7 with.
        ceil_pools: whether a pool counts a last window that hangs over the edge of the map.
        lrn_after_pool: whether local response normalisation comes after the pool instead of before it.
        numbered: torchvision's layout: children are numbered, dropout precedes fc6 and fc7, ReLUs work in
            place, and an average pool brings every map to 6×6.
    """

    name: str
    convolutions: tuple[Convolution, ...]
    input_size: tuple[int, int]
    hidden: tuple[int, int] = (4096, 4096)
    num_classes: int = 1000
    norm: Norm = "none"
    in_channels: int = 3
    pool: Pooling = "overlapping"
    dropout: float = 0.5
    bias: bool | None = None
    init: Initialisation = "kaiming"
    init_scale: float = 1.0
    removed: tuple[int, ...] = ()
    published_hidden_bias: float = 0.0
    ceil_pools: bool = False
    lrn_after_pool: bool = False
    numbered: bool = False

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("norm", self.norm, NORMS),
            ("pool", self.pool, ("overlapping", "non-overlapping")),
            ("init", self.init, get_args(Initialisation)),
        ):
            if value not in choices:
                raise ConvscopeError(
                    f"{self.name}: {option}={value!r}", f"one of {', '.join(choices)}", "choose one"
                )
        if (
            min(self.input_size) < 1
            or self.num_classes < 1
            or self.in_channels < 1
            or not 0 <= self.dropout < 1
        ):
            raise ConvscopeError(
                f"{self.name}: num_classes={self.num_classes}, in_channels={self.in_channels}, "
                f"input_size={self.input_size}, dropout={self.dropout}",
                "at least one class, channel and pixel, and a dropout of at least 0 and less than 1",
                "correct the option",
            )
        if len(self.hidden) != 2 or min(self.hidden) < 1 or not 0 < self.init_scale < math.inf:
            raise ConvscopeError(
                f"{self.name}: hidden={self.hidden}, init_scale={self.init_scale}",
                "two widths from 1, and a positive, finite scale",
                "correct the option",
            )
        if not set(self.removed) <= REMOVABLE:
            raise ConvscopeError(
                f"{self.name}: removed={self.removed}",
                f"layers of {sorted(REMOVABLE)}: the others end in a pool or give the scores",
                "choose among them",
            )

    @property
    def numbered_convolutions(self) -> tuple[tuple[int, Convolution], ...]:
        """The convolutions that the network has, with their numbers."""
        return tuple(pair for pair in enumerate(self.convolutions, 1) if pair[0] not in self.removed)

    @property
    def numbered_hidden(self) -> tuple[tuple[int, int], ...]:
        """The widths of fc6 and fc7, of those that the network has, with their numbers."""
        return tuple(pair for pair in enumerate(self.hidden, 6) if pair[0] not in self.removed)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        return (self.in_channels, *self.input_size)

    @property
    def pool_kernel(self) -> int:
        """Side of a pool's window, in pixels; its stride is 2."""
        return 3 if self.pool == "overlapping" else 2

    @property
    def pools_hang(self) -> bool:
        """Whether a pool's last window may hang over the edge; 2×2 windows never need to."""
        return self.ceil_pools and self.pool == "overlapping"

    @property
    def convolution_bias(self) -> bool:
        """Whether convolutions have a bias."""
        return self.norm not in _REMOVES_BIAS if self.bias is None else self.bias

    @property
    def published_biases(self) -> tuple[float, ...]:
        """The paper's first biases of all convolutions and linear layers, in order."""
        hidden = (self.published_hidden_bias,) * len(self.numbered_hidden)
        return (*(convolution.published_bias for _, convolution in self.numbered_convolutions), *hidden, 0.0)

    def with_options(
        self, norm: Norm | None, num_classes: int, input_size: Size | None, layers: LayerChoices
    ) -> "Plan":
        """The same plan with a builder's options; None keeps the plan's own.

        Raises:
            ConvscopeError: an option has a value that isn't offered.
        """
        return replace(
            self,
            norm=self.norm if norm is None else norm,
            num_classes=num_classes,
            input_size=self.input_size if input_size is None else both_sides(input_size),
            **layers,
        )

    def scaled(self, width: float) -> "Plan":
        """The same plan with every width but the classes' multiplied, rounded to an even number ≥ 2.

        Even, so that two groups still divide it.

        Raises:
            ConvscopeError: ``width`` isn't a positive, finite number.
        """
        if not 0 < width < float("inf"):
            raise ConvscopeError(
                f"{self.name}: width={width}", "a positive number", "1.0 is the published width"
            )
        return replace(
            self,
            convolutions=tuple(replace(c, channels=_even(c.channels * width)) for c in self.convolutions),
            hidden=(_even(self.hidden[0] * width), _even(self.hidden[1] * width)),
        )


def last_map(plan: Plan, side: int) -> int:
    """Return the side of the map before fc6 (or torchvision's average pool), in pixels; 0 if none is left.

    Each layer follows ``floor((n + 2·padding − kernel) / stride) + 1``, with ``ceil`` for hanging pools.

    Example:
        >>> from convscope.networks.alexnet import alexnet_plan
        >>> last_map(alexnet_plan("notes"), 227), last_map(alexnet_plan("notes"), 66)
        (6, 0)
    """
    for _, convolution in plan.numbered_convolutions:
        side = (side + 2 * convolution.padding - convolution.kernel) // convolution.stride + 1
        if convolution.pooled and side > 0:
            # With a stride of 2, rounding up is adding 1 before halving.
            side = (side - plan.pool_kernel + plan.pools_hang) // 2 + 1
        if side < 1:
            return 0
    return side


def minimum_size(plan: Plan) -> int:
    """Return the smallest side of an input that leaves a map before fc6, in pixels."""
    side = 1
    while last_map(plan, side) < 1:
        side += 1
    return side


def both_sides(size: Size) -> tuple[int, int]:
    """Return height and width of a size given as one number or two."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _even(value: float) -> int:
    return max(2, 2 * round(value / 2))

"""ZFNet: AlexNet with the stem that its visualisations asked for.

The first convolution is 7×7 with stride 2 instead of 11×11 with stride 4, the second has stride 2; the
published figure is reached at 224×224 like this:

===========  ==================  ===========  =============================================
layer        window              map          how the size comes about
===========  ==================  ===========  =============================================
conv1        7×7, stride 2       96×110×110   one pixel of padding on each side
pool1        3×3, stride 2       96×55×55     the last window hangs over the edge (``ceil``)
conv2        5×5, stride 2       256×26×26    no padding
pool2        3×3, stride 2       256×13×13    the last window hangs over the edge (``ceil``)
conv3, 4, 5  3×3                 384, 384, 256 ×13×13  one pixel of padding
pool5        3×3, stride 2       256×6×6
===========  ==================  ===========  =============================================

62,357,608 parameters and 1,168,032,896 MACs an image. The paper gives the maps' sizes but neither paddings
nor the constants of its contrast normalisation, "across feature maps", after each of the first two pools;
it is local response normalisation with AlexNet's constants here.

Source: Zeiler and Fergus 2013, "Visualizing and understanding convolutional networks" (arXiv 1311.2901),
figure 3 and section 3.
"""

from dataclasses import replace
from typing import Any, Literal, Unpack, get_args

from convscope.core.errors import ConvscopeError
from convscope.networks.plan import Convolution, LayerChoices, Norm, Plan, Size
from convscope.networks.stack import Stack, build

StemName = Literal["7x7/2", "11x11/4"]


class ZFNet(Stack):
    """ZFNet; see :func:`zfnet`."""


ZFNET_PLAN = Plan(
    "zfnet",
    (
        Convolution(96, kernel=7, stride=2, padding=1, pooled=True, lrn=True),
        Convolution(256, kernel=5, stride=2, pooled=True, lrn=True),
        Convolution(384, kernel=3, padding=1),
        Convolution(384, kernel=3, padding=1),
        Convolution(256, kernel=3, padding=1, pooled=True),
    ),
    (224, 224),
    norm="lrn",
    ceil_pools=True,
    lrn_after_pool=True,
)
_FIRST: dict[str, dict[str, Any]] = {
    "7x7/2": {"kernel": 7, "stride": 2, "padding": 1},
    "11x11/4": {"kernel": 11, "stride": 4, "padding": 0},
}
_SECOND_PADDING = {1: 2, 2: 0}  # of a 5×5 window: AlexNet's with stride 1, this network's with stride 2


def zfnet(
    norm: Norm | None = None,
    *,
    width: float = 1.0,
    num_classes: int = 1000,
    input_size: Size | None = None,
    stem: StemName = "7x7/2",
    second_stride: int = 2,
    middle: tuple[int, int, int] = (384, 384, 256),
    **layers: Unpack[LayerChoices],
) -> Stack:
    """Return ZFNet with fresh weights, in training mode.

    Names of layers and places of normalisations are AlexNet's (:func:`~convscope.networks.alexnet.alexnet`),
    except that local response normalisation follows the pool, as published.

    Args:
        norm: one of ``convscope.networks.NORMS`` (``convscope.norm.normalisation`` describes them); None:
            ``"lrn"``, as published.
        width: factor of all channels and of fc6's and fc7's widths; results are rounded to even numbers.
        num_classes: number of scores.
        input_size: side of the input or ``(height, width)``, in pixels, at least 47; None: 224. fc6 is
            sized for it.
        stem: conv1's window and stride: ``"7x7/2"``, or AlexNet's ``"11x11/4"``.
        second_stride: conv2's stride, 2, or AlexNet's 1 (with AlexNet's two pixels of padding).
        middle: channels of conv3, conv4 and conv5 before ``width`` scales them; the paper's table 3 also
            tried (512, 1024, 512).
        **layers: see :class:`~convscope.networks.plan.LayerChoices`.

    Returns:
        A module that maps images ``(n, in_channels, height, width)`` to scores ``(n, num_classes)``.

    Raises:
        ConvscopeError: an option has a value that isn't one of the above, or the input is too small.

    Source: see the module.

    Example:
        >>> zfnet("batch", width=0.25, num_classes=10, input_size=64).features.conv1
        Conv2d(3, 24, kernel_size=(7, 7), stride=(2, 2), padding=(1, 1), bias=False)
    """
    plan = _designed(stem, second_stride, middle).with_options(norm, num_classes, input_size, layers)
    return build(plan.scaled(width), ZFNet)


def _designed(stem: StemName, second_stride: int, middle: tuple[int, int, int]) -> Plan:
    if stem not in _FIRST or second_stride not in _SECOND_PADDING or len(middle) != 3 or min(middle) < 1:
        raise ConvscopeError(
            f"zfnet: stem={stem!r}, second_stride={second_stride!r}, middle={middle!r}",
            f"a stem of {', '.join(get_args(StemName))}, a stride of 1 or 2, and three widths from 1",
            "correct the option",
        )
    first, second, *rest = ZFNET_PLAN.convolutions
    return replace(
        ZFNET_PLAN,
        convolutions=(
            replace(first, **_FIRST[stem]),
            replace(second, stride=second_stride, padding=_SECOND_PADDING[second_stride]),
            *(replace(layer, channels=channels) for layer, channels in zip(rest, middle, strict=True)),
        ),
    )

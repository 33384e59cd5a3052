"""AlexNet, in the three versions that are called so.

==============  =================  ======  ==========================  ===========  =============
variant         input              groups  channels                    parameters   MACs an image
==============  =================  ======  ==========================  ===========  =============
``notes``       227×227            1       96, 256, 384, 384, 256      62,378,344   1,135,256,096
``published``   227×227            1 or 2  96, 256, 384, 384, 256      60,965,224     724,406,816
``torchvision`` 224×224, padded    1       64, 192, 384, 256, 256      61,100,840     714,188,480
==============  =================  ======  ==========================  ===========  =============

``notes`` is the network on one GPU, as courses teach it: no groups, no local response normalisation.
``published`` is the paper's: convolutions 2, 4 and 5 have two groups, one a GPU, and local response
normalisation follows the ReLUs of the first two. The paper writes 224×224 where its own arithmetic needs
227. ``torchvision`` is the one of "One weird trick" with torchvision's names, so its checkpoints load.

Source: Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural
networks", section 3.5 and figure 2; Krizhevsky 2014 (arXiv 1404.5997).
"""

from dataclasses import replace
from typing import Literal, Unpack

from convscope.core.errors import ConvscopeError
from convscope.networks.plan import Convolution, LayerChoices, Norm, Plan, Size
from convscope.networks.stack import Stack, build

Variant = Literal["notes", "published", "torchvision"]


class AlexNet(Stack):
    """AlexNet; see :func:`alexnet`."""


_ONE_GPU = (
    Convolution(96, kernel=11, stride=4, pooled=True, lrn=True),
    Convolution(256, kernel=5, padding=2, pooled=True, lrn=True, published_bias=1.0),
    Convolution(384, kernel=3, padding=1),
    Convolution(384, kernel=3, padding=1, published_bias=1.0),
    Convolution(256, kernel=3, padding=1, pooled=True, published_bias=1.0),
)
_TWO_GPUS = tuple(
    replace(layer, groups=groups) for layer, groups in zip(_ONE_GPU, (1, 2, 1, 2, 2), strict=True)
)
_ONE_WEIRD_TRICK = (
    Convolution(64, kernel=11, stride=4, padding=2, pooled=True, lrn=True),
    Convolution(192, kernel=5, padding=2, pooled=True, lrn=True, published_bias=1.0),
    Convolution(384, kernel=3, padding=1),
    Convolution(256, kernel=3, padding=1, published_bias=1.0),
    Convolution(256, kernel=3, padding=1, pooled=True, published_bias=1.0),
)
PLANS: dict[str, Plan] = {
    "notes": Plan("alexnet (notes)", _ONE_GPU, (227, 227), published_hidden_bias=1.0),
    "published": Plan("alexnet (published)", _TWO_GPUS, (227, 227), norm="lrn", published_hidden_bias=1.0),
    "torchvision": Plan(
        "alexnet (torchvision)", _ONE_WEIRD_TRICK, (224, 224), numbered=True, published_hidden_bias=1.0
    ),
}


def alexnet_plan(variant: Variant) -> Plan:
    """Return the plan of a variant.

    Raises:
        ConvscopeError: there is no such variant.
    """
    if variant not in PLANS:
        raise ConvscopeError(f"alexnet: variant={variant!r}", f"one of {', '.join(PLANS)}", "choose one")
    return PLANS[variant]


def alexnet(
    variant: Variant = "notes",
    norm: Norm | None = None,
    *,
    width: float = 1.0,
    num_classes: int = 1000,
    input_size: Size | None = None,
    **layers: Unpack[LayerChoices],
) -> Stack:
    """Return AlexNet with fresh weights, in training mode.

    Layers are named after the paper: ``features.conv1``, ``features.norm1``, ``features.relu1``,
    ``features.pool1`` … ``classifier.fc6``, ``classifier.fc7``, ``classifier.fc8``; the torchvision variant
    is numbered like torchvision's.

    Batch, layer, instance and group norm follow every convolution, before its ReLU; local response
    normalisation follows the ReLUs of the first two convolutions, as published. The fully connected layers
    aren't normalised: with batch norm between them a training step with a single image would have no
    variance, and the dropout before it would train it on another variance than it meets at test time
    (Li et al. 2018, arXiv 1801.05134).

    Args:
        variant: ``"notes"``, ``"published"`` or ``"torchvision"``.
        norm: one of ``convscope.networks.NORMS`` (``convscope.norm.normalisation`` describes them); None: the
            variant's own, which is ``"lrn"`` for ``"published"`` and ``"none"`` for the others.
        width: factor of all channels and of fc6's and fc7's widths; results are rounded to even numbers.
        num_classes: number of scores.
        input_size: side of the input or ``(height, width)``, in pixels, at least 67 (63 in torchvision's
            variant, less with 2×2 pools); None: 227, and 224 for torchvision's. fc6 is sized for it, except
            in torchvision's variant, which pools every map to 6×6.
        **layers: see :class:`~convscope.networks.plan.LayerChoices`.

    Returns:
        A module that maps images ``(n, in_channels, height, width)`` to scores ``(n, num_classes)``.

    Raises:
        ConvscopeError: an option has a value that isn't one of the above, or the input is too small.

    Source: see the module.

    Example:
        >>> sum(p.numel() for p in alexnet(width=0.25, num_classes=10, input_size=67).parameters())
        1367402
    """
    plan = alexnet_plan(variant).with_options(norm, num_classes, input_size, layers)
    return build(plan.scaled(width), AlexNet)

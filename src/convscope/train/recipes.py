"""How published networks were trained, as named settings: AlexNet's, ZFNet's, and a present-day one.

A recipe says every value's source, what the paper leaves open, and where convscope does something else. None
of them promises the published accuracy: that takes the published data, too. The papers' first weights are for
their widths: a network of a tenth of them stays at chance with a deviation of 0.01, since each layer's output
is smaller by the root of its width; give ``init="kaiming"`` and images of unit deviation then, as the command
line does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.data import ImageData, load_data
from convscope.networks import Loaded, load
from convscope.train.config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, and what belongs to it besides.

    Attributes:
        name: by which :func:`recipe` finds it.
        config: the settings.
        network: the network that it is of; None for any network.
        options: how that network is built, for :func:`convscope.load`.
        picture_size: side to which pictures are resized before windows are cut, in pixels.
        deviation: by what pixels on a scale of 0 to 1 are divided once the mean is taken away; 1/255 leaves
            the papers' scale of about −128 to 128; None: their own deviation.
        source: where the values come from.
        open: values that the source doesn't give, and those that are used.
        differs: what convscope does otherwise.
    """

    name: str
    config: TrainConfig
    picture_size: int
    source: str
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    deviation: float | None = None
    open: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    def images(self, reference: str | Path, *, channels: int = 3, seed: int = 0) -> ImageData:
        """Return images that a text names, resized and normalised as the recipe says.

        Args:
            reference: see :func:`convscope.data.load_data`.
            channels: 3, or 1 for grey.
            seed: of the split.

        Raises:
            ConvscopeError: as :func:`convscope.data.load_data`.
        """
        return self.prepared(load_data(reference, size=self.picture_size, channels=channels, seed=seed))

    def prepared(self, images: ImageData) -> ImageData:
        """Return images divided as the recipe says."""
        if self.deviation is None:
            return images
        return images.normalised_with(images.mean, (self.deviation,) * len(images.mean))

    def load(self, num_classes: int, **options: Any) -> Loaded:
        """Return the recipe's network with fresh weights; ``options`` replace those of the recipe.

        Raises:
            ConvscopeError: the recipe is of no network.
        """
        if self.network is None:
            raise ConvscopeError(
                f"recipe {self.name!r}, which is of no network", "one", "load the network yourself"
            )
        return load(self.network, num_classes=num_classes, **{**self.options, **options})


def recipe(name: str) -> Recipe:
    """Return a published recipe: ``"alexnet"``, ``"zfnet"`` or ``"modern"``.

    =====================  =====================  =====================  ========================
    setting                alexnet                zfnet                  modern
    =====================  =====================  =====================  ========================
    optimizer              SGD, momentum 0.9 (a)  SGD, momentum 0.9 (d)  SGD, Nesterov 0.9 (e, f)
    images in a step       128 (a)                128 (d)                256 (e)
    learning rate          0.01, ÷10 on a         0.01, ÷10 on a         0.1, warm-up of 5 epochs,
                           plateau (a)            plateau (d)            cosine (e)
    epochs                 90 (a)                 70 (d)                 120 (e)
    weight decay           5e-4 (a)               5e-4 (not given)       1e-4 (f)
    label smoothing        none                   none                   0.1 (e)
    first weights          N(0, 0.01²) (a)        N(0, 0.01²) (d)        as the network comes
    first biases           1 in conv2, 4, 5 and   0 (d)                  as the network comes
                           the hidden layers (a)
    dropout of fc6, fc7    0.5 (b)                0.5 (d)                as the network comes
    filters                free                   RMS at most 0.1 (d)    free
    pictures               256×256, less the      256×256, less the      256×256, mean and
                           mean (c)               mean (d)               deviation (e)
    windows in training    227×227 at random,     224×224, one of ten    224×224 at random,
                           mirrored (c)           (d)                    mirrored
    colour noise           PCA, 0.1 (c)           none                   none
    windows in evaluation  ten (c)                ten (d)                centre (e)
    =====================  =====================  =====================  ========================

    (a) Krizhevsky, Sutskever and Hinton 2012, section 5. (b) Section 4.2. (c) Sections 2 and 4.1; the paper
    prints 224×224 where its own arithmetic needs 227. (d) Zeiler and Fergus 2013 (arXiv 1311.2901),
    section 3. (e) He, Zhang, Zhang, Zhang, Xie and Li 2018, "Bag of tricks for image classification"
    (arXiv 1812.01187), sections 2.1, 3.1, 5.1 and 5.2. (f) He, Zhang, Ren and Sun 2015, "Deep residual
    learning" (arXiv 1512.03385), section 3.4, for the weight decay and momentum.

    What the sources leave open and what is done otherwise: :attr:`Recipe.open` and :attr:`Recipe.differs`.

    Args:
        name: one of the three.

    Raises:
        ConvscopeError: there is no such recipe; close names are offered.

    Example:
        >>> chosen = recipe("zfnet")
        >>> chosen.config.renormalise_radius, chosen.config.crop, chosen.picture_size
        (0.1, 224, 256)
    """
    if name not in RECIPES:
        raise ConvscopeError(
            f"unknown recipe {name!r}", f"one of {', '.join(RECIPES)}", nearest(name, RECIPES, "choose one")
        )
    return RECIPES[name]


_PLATEAU = "when a validation error counts as no longer falling: after 5 epochs without a lower one"
_FREE = "biases (and scales and shifts of norms, where there are any) have no weight decay"
_DIVISIONS = "the rate goes on being divided on every plateau"

_ALEXNET = Recipe(
    name="alexnet",
    config=TrainConfig(
        epochs=90,
        batch_size=128,
        learning_rate=0.01,
        optimizer="sgd-momentum",
        momentum=0.9,
        weight_decay=5e-4,
        schedule="plateau",
        step_factor=0.1,
        augment="crop-colour",
        crop=227,
        evaluation="ten-crop",
    ),
    picture_size=256,
    source="Krizhevsky, Sutskever and Hinton 2012, sections 2, 4 and 5",
    network="alexnet",
    options=MappingProxyType({"variant": "published", "init": "published", "dropout": 0.5}),
    deviation=1 / 255,
    open=(_PLATEAU, "the scale of the colours whose covariance the noise is of: 0 to 1"),
    differs=(
        "one mean is taken away for each channel, not for each pixel",
        f"{_FREE}; the paper doesn't say that they had none",
        f"{_DIVISIONS}; the paper divided it three times",
        "PyTorch's momentum applies the rate to the sum of gradients, the paper's to each gradient as it is "
        "added; they differ for a while after a change of the rate",
        "the hidden layers that start with a bias of 1 are fc6 and fc7",
    ),
)

_ZFNET = Recipe(
    name="zfnet",
    config=TrainConfig(
        epochs=70,
        batch_size=128,
        learning_rate=0.01,
        optimizer="sgd-momentum",
        momentum=0.9,
        weight_decay=5e-4,
        schedule="plateau",
        step_factor=0.1,
        renormalise_radius=0.1,
        augment="ten-crops",
        crop=224,
        evaluation="ten-crop",
    ),
    picture_size=256,
    source="Zeiler and Fergus 2013 (arXiv 1311.2901), section 3",
    network="zfnet",
    options=MappingProxyType({"init": "published", "dropout": 0.5}),
    deviation=1 / 255,
    open=(
        "weight decay: AlexNet's 5e-4",
        "by how much the rate is annealed on a plateau: a tenth",
        _PLATEAU,
        "what is averaged over the ten windows in evaluation: probabilities, as for AlexNet",
    ),
    differs=(
        "one mean is taken away for each channel, not for each pixel",
        _FREE,
        f"{_DIVISIONS}; the paper annealed it by hand",
        "its contrast normalisation is AlexNet's local response normalisation here",
    ),
)

_MODERN = Recipe(
    name="modern",
    config=TrainConfig(
        epochs=120,
        batch_size=256,
        learning_rate=0.1,
        optimizer="sgd-momentum",
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        schedule="cosine",
        warmup_epochs=5.0,
        label_smoothing=0.1,
        augment="crop",
        crop=224,
        evaluation="centre",
    ),
    picture_size=256,
    source=(
        "He et al. 2018, Bag of tricks (arXiv 1812.01187), sections 2.1, 3.1, 5.1, 5.2; weight decay: "
        "He et al. 2015, Deep residual learning (arXiv 1512.03385), section 3.4"
    ),
    differs=(
        "windows have one size, not 8 to 100 % of the area and sides of 3:4 to 4:3",
        "no jitter of hue, saturation and brightness, and no PCA noise",
        "the last scale of a residual block starts as the network has it, not at 0",
        "for another batch_size, multiply learning_rate by batch_size / 256 (section 3.1)",
    ),
)

RECIPES: dict[str, Recipe] = {each.name: each for each in (_ALEXNET, _ZFNET, _MODERN)}
"""All recipes, by name."""

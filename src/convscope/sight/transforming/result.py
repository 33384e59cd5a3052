"""What becomes of features and of the answer while images are moved, scaled and turned."""

from dataclasses import dataclass

from convscope.core.result import Result
from convscope.sight.transforming.transformation import Border, Kind


@dataclass(frozen=True)
class Mean:
    """A mean over images.

    Attributes:
        value: None without a single image that it is known of.
        low, high: ends of the 95 % interval by Student's t, which takes images for independent; None for
            fewer than two.
        count: images.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class FeaturePoint:
    """A layer's features after one transformation f(T x), beside those before, f(x).

    Attributes:
        amount: pixels, factor or degrees.
        distance: ‖f(T x) − f(x)‖ / ‖f(x)‖, Euclidean, over the whole layer.
        against_others: root mean square of ‖f(T x) − f(x)‖ divided by that of ‖f(x) − f(y)‖ over all pairs of
            different images; 1 is as far away as another image. None for fewer than two images.
        unmoved: as ``distance``, over the positions that ``residual`` compares.
        residual: ‖T⁻¹ f(T x) − f(x)‖ / ‖f(x)‖, maps taken back before they are compared: what is neither
            invariant nor equivariant.
        compared: share of the map's positions that both are measured on; 0 where there are none.
    """

    amount: float
    distance: Mean
    against_others: float | None
    unmoved: Mean | None
    residual: Mean | None
    compared: float


@dataclass(frozen=True)
class UnitRanking:
    """A layer's units under one kind of transformation, all amounts but the identity together.

    Attributes:
        distance: root mean square of ‖f(T x) − f(x)‖ of each unit's map, divided by that between different
            images; 0 is invariant. None for units that don't tell images apart, those that never fire
            included, and for fewer than two images.
        residual: root of Σ ‖T⁻¹ f(T x) − f(x)‖² / Σ ‖f(T x) − f(x)‖² over the compared positions: 0 is
            equivariant, 1 means that taking the map back explains nothing. None where nothing changes or
            nothing can be compared.
        most_invariant, most_equivariant: the units with the smallest of each, smallest first.
    """

    distance: tuple[float | None, ...]
    residual: tuple[float | None, ...]
    most_invariant: tuple[int, ...]
    most_equivariant: tuple[int, ...]


@dataclass(frozen=True)
class LayerCurve:
    """A layer under one kind of transformation.

    Attributes:
        kind: of transformation.
        points: by amount, ascending.
        units: None for a layer whose channels aren't its second axis.
    """

    kind: Kind
    points: tuple[FeaturePoint, ...]
    units: UnitRanking | None


@dataclass(frozen=True)
class LayerInvariance:
    """One layer.

    Attributes:
        name: as it was asked for, or the convolution's.
        address: where its features are read.
        shape: of one image's features.
        between_images: root mean square of ‖f(x) − f(y)‖ over all pairs of different images; None for fewer
            than two.
        positions: where its positions are in the image: ``"receptive fields"``; ``"spread evenly"`` where
            these aren't known; ``"none"`` for layers without space.
        area: what is compared after maps are taken back: ``"image only"``, positions that see no padding and
            nothing that came in at the border; ``"middles"``, those whose middle stays in the image, where
            fewer than a quarter see no padding; ``"none"``.
        curves: one for each kind of transformation.
    """

    name: str
    address: str
    shape: tuple[int, ...]
    between_images: float | None
    positions: str
    area: str
    curves: tuple[LayerCurve, ...]


@dataclass(frozen=True)
class AnswerPoint:
    """The network's answer after one transformation.

    Attributes:
        amount: pixels, factor or degrees.
        probability: of each image's class.
        unchanged: share of the images whose most probable class is the untransformed one's.
    """

    amount: float
    probability: Mean
    unchanged: float


@dataclass(frozen=True)
class AnswerCurve:
    """The network's answer under one kind of transformation; points by amount, ascending."""

    kind: Kind
    points: tuple[AnswerPoint, ...]


@dataclass(frozen=True)
class Invariance(Result):
    """How features and answer change while images are moved, scaled and turned.

    Attributes:
        num_images: how many were transformed.
        image_size: (height, width) in pixels.
        border: what came in at the border.
        direction: (y, x) of translations.
        resampling: how pixels between pixels were made.
        output: which output the probabilities are from; None for a network without class scores.
        label_source: ``"given"`` or ``"predicted"``: whose probability it is.
        answers: one for each kind of transformation; empty without class scores.
        layers: in the order in which they run, or were asked for.
        left_out: layers that were left out of ``"all"``, each with its reason.
    """

    num_images: int
    image_size: tuple[int, int]
    border: Border
    direction: tuple[float, float]
    resampling: str
    output: str | None
    label_source: str
    answers: tuple[AnswerCurve, ...]
    layers: tuple[LayerInvariance, ...]
    left_out: tuple[str, ...]

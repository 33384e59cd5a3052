"""What a projection is: one unit's picture in input space, with all that is needed to judge it.

A projection shows which structure of the input the layers *below* a unit hand on to it; it doesn't show why
a class was chosen. The scores beside it say how much of the picture is about this unit and this image.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.tape.receptive_field import ReceptiveField

Rule = Literal["deconvnet", "guided", "gated", "gradient"]
"""How an activation is passed on the way back: ``deconvnet`` keeps the positive signal, ``guided`` keeps it
where the unit fired too (both for ReLUs alone), ``gated`` multiplies it by the gate that the activation
opened, ``gradient`` is the derivative. See :mod:`convscope.sight.projecting.rules`."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, ``top ≤ y < bottom`` and ``left ≤ x < right``, inside the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left


@dataclass(frozen=True)
class Census:
    """How the operators between image and unit were passed on the way back.

    Attributes:
        rewritten: addresses of ReLUs whose backward ``deconvnet`` or ``guided`` replaced.
        gated: addresses of the activations that ``gated`` passed by their frozen gates.
        frozen: addresses of products, quotients and norms whose gates, denominators or statistics counted
            as recorded switches. What only these are made of isn't on the way, and isn't counted.
        switches: addresses of max-pools; their gradient is the switches: sums where windows overlap.
        identity: addresses of local response normalisations, passed as if they weren't there.
        left: addresses of nonlinear operators passed by their own derivative; only ``gradient`` has any.
        linear: number of operators whose backward doesn't depend on the image (convolutions, batch norms
            at test time, sums, shape changes).
        convolutions: how many of these are convolutions.
    """

    rewritten: tuple[str, ...]
    gated: tuple[str, ...]
    frozen: tuple[str, ...]
    switches: tuple[str, ...]
    identity: tuple[str, ...]
    left: tuple[str, ...]
    linear: int
    convolutions: int


@dataclass(frozen=True)
class Scores:
    """How far a projection can be trusted; None for what wasn't computed.

    An empty projection has no scores. One that is compared with an empty one (a turned image that doesn't
    activate the unit, random weights through which nothing comes) has a cosine of 0 to that.

    Attributes:
        selectivity: 1 − mean cosine between the projection and those of random positive seeds over all
            channels at the same position; near 0 the picture isn't about this unit.
        image_dependence: 1 − mean cosine between the projection and those of the same unit and position
            with the image mirrored and turned round, in [0, 1]; exactly 0 for a picture that ignores the
            image (equal within a millionth of its largest value). None where the pixels that the unit sees
            are the same when turned, as in a flat image.
        randomisation: 1 − cosine to the projection through a network whose upper layers are random.
        masking_drop: relative drop of the unit's activation when the strongest tenth of the projection is
            greyed out in the image, less the mean drop for random pixels of the same patch; exactly 0
            within a millionth. None for a patch of fewer than three pixels, where a tenth, at least one
            pixel, isn't less than half and leaves random ones no choice; and for a unit that is made of held
            gates alone (one of a squeeze-and-excitation block), which masking can't move.
    """

    selectivity: float | None = None
    image_dependence: float | None = None
    randomisation: float | None = None
    masking_drop: float | None = None

    @property
    def not_computed(self) -> tuple[str, ...]:
        """Names of the scores which are None."""
        return tuple(name for name, score in vars(self).items() if score is None)


@dataclass(frozen=True)
class Projection(Result):
    """One unit's projection to the input.

    Attributes:
        image: signed, ``(height, width, channels)`` of the whole input, on the CPU; zero outside ``box``
            when the receptive field is finite. Shown by :func:`convscope.sight.as_picture`.
        rule: see :data:`Rule`.
        rule_reason: why this rule was chosen; None where it was asked for.
        address: where the unit is read: a module call or an operator call.
        unit: the channel.
        position: (y, x) of the seed in the unit's map; None for a layer without space.
        receptive_field: of the unit's map; None where it differs by position, or is the image.
        box: the pixels that the seeded position sees, clamped to the image.
        seed_value: the unit's activation there; the seed itself is 1, which changes only the scale.
        scores: see :class:`Scores`.
        not_computed: names of the scores that are None.
        census: see :class:`Census`.
        findings: what should be known before the picture is believed.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"image"})

    image: Float[Tensor, "height width channels"]
    rule: Rule
    rule_reason: str | None
    address: str
    unit: int
    position: tuple[int, int] | None
    receptive_field: ReceptiveField | None
    box: Box
    seed_value: float
    scores: Scores
    not_computed: tuple[str, ...]
    census: Census
    findings: tuple[Finding, ...]

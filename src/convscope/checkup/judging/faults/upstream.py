"""Faults of layers before a batch norm that change its inputs between training and test time: dropout."""

import math
from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.observed import DropoutShift, NormCall, Observation
from convscope.core.finding import Evidence, Finding

_ADVISED = 0.05
_TOLERATED = math.log(1.25)  # of a variance
_SURE = 4.0  # standard errors


@fault("dropout-before-norm")
def dropout_before_norm(observation: Observation) -> Iterator[Finding]:
    """Dropout widens the inputs of a batch norm in training, and its running variance is too large after it.

    Reported once for the same dropout, at the layer that it changes most: a warning where it makes the
    variance a quarter larger or more, beyond doubt, advice from 5 %. Effect: the logarithm over log 1.25.
    """
    worst: dict[tuple[str, ...], tuple[float, NormCall, DropoutShift]] = {}
    for norm in observation.norms:
        shift = norm.inputs.dropout if norm.inputs is not None else None
        if shift is None or norm.frozen:
            continue
        sure = abs(shift.log_ratio) - _SURE * shift.error
        if sure > _ADVISED and sure > worst.get(shift.sources, (0.0,))[0]:
            worst[shift.sources] = (sure, norm, shift)
    for sure, norm, shift in sorted(worst.values(), key=lambda entry: -entry[0]):
        yield _finding(sure, norm, shift)


def _finding(sure: float, norm: NormCall, shift: DropoutShift) -> Finding:
    ratio = math.exp(shift.log_ratio)
    sources = " and ".join(shift.sources[:3]) + (", …" if len(shift.sources) > 3 else "")
    return Finding(
        "dropout-before-norm",
        "warning" if sure > _TOLERATED else "advice",
        norm.address,
        (
            Evidence(
                "log ratio of variances", shift.log_ratio, "1",
                "with dropout over without, same samples, median of channels",
            ),
            Evidence("its standard error", shift.error, "1", "jackknife over groups of samples"),
            Evidence("dropouts", len(shift.sources), "calls", "before it, with no batch norm in between"),
        ),
        f"{sources} makes the inputs' variance {ratio:.2f} times what it is without dropout, as at test "
        "time: the running variance is learnt of other inputs than it is used for",
        "dropout behind the last batch norm; for a network that is trained already, "
        "cs.norm.recalibrate(model, loader), which runs without dropout",
        "Li et al., Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift, "
        "arXiv 1801.05134",
        effect=max(1.0, sure / _TOLERATED),
    )  # fmt: skip

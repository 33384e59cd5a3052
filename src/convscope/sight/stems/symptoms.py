"""Findings about a stem: what is said of its filters, and of its strides."""

from dataclasses import replace

from convscope.sight.stems import filter_symptoms, stride_symptoms
from convscope.sight.stems.diagnosis import Stem

_JUDGES = (
    filter_symptoms.dead,
    filter_symptoms.weight_dead,
    filter_symptoms.dominant,
    filter_symptoms.oversized,
    filter_symptoms.weak,
    filter_symptoms.duplicates,
    filter_symptoms.gap,
    stride_symptoms.aliased,
    stride_symptoms.aliased_behind,
    stride_symptoms.lattice,
    stride_symptoms.unsteady,
)


def symptoms_of(stem: Stem) -> Stem:
    """Return a diagnosis with its findings; thresholds stand, with their reasons, beside each judge."""
    found = (judge(stem) for judge in _JUDGES)
    return replace(stem, findings=tuple(finding for finding in found if finding is not None))

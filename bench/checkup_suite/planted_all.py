"""All planted cases but those between processes, which run otherwise (``planted_processes``)."""

from bench.checkup_suite import planted_batches, planted_lineage, planted_statistics, planted_training
from bench.checkup_suite.planted import Planted

_GROUPS = (planted_statistics, planted_training, planted_batches, planted_lineage)

CASES: tuple[Planted, ...] = tuple(case for group in _GROUPS for case in group.CASES)

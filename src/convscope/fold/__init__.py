"""How does a network run without batch norm? Test-time batch norms, moved into the layers around them.

:func:`fold` decides from the recorded data flow, works on a copy, proves the copy equal in float64, and says
for every batch norm where it went or why it stayed. ``gauge`` holds the algebra and its table of operator
rules, ``merge`` the parallel branches, ``export`` the files.

Limits: ``LIMITATIONS.md``, and ``docs/folding.md`` for what can't fold and why.
"""

from convscope.core.callable_room import make_callable
from convscope.fold.export import Exported
from convscope.fold.fold import fold
from convscope.fold.ledger import Folded, Ledger, LedgerEntry, OutputError, Proof, Speed, Timing
from convscope.fold.merge import MergedAway, MergedBranches
from convscope.fold.norms.identity import FoldedBatchNorm, FoldedBatchNormAct, PartlyFoldedBatchNorm
from convscope.fold.options import Border
from convscope.fold.speed import measure_speed
from convscope.fold.twin import twin_without_batch_norm

__all__ = [
    "Border",
    "Exported",
    "Folded",
    "FoldedBatchNorm",
    "FoldedBatchNormAct",
    "Ledger",
    "LedgerEntry",
    "MergedAway",
    "MergedBranches",
    "OutputError",
    "PartlyFoldedBatchNorm",
    "Proof",
    "Speed",
    "Timing",
    "fold",
    "measure_speed",
    "twin_without_batch_norm",
]

make_callable(__name__, fold)

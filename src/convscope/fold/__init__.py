"""How does a network run without batch norm? Test-time batch norms, moved into the layers before them.

:func:`fold` decides from the recorded data flow, works on a copy, proves the copy equal in float64, and
says for every batch norm where it went or why it stayed. ``rules`` is the table of layers that can take a
batch norm in.

Limits: folds backward, into a convolution or linear layer that feeds the batch norm and nothing else. Batch
norm before a layer, across concatenation or addition, in parallel branches, or as a function in a module's
own code is kept, with its reason. Frozen batch norms that are written as a multiplication and an addition
aren't seen.
"""

from convscope.core.callable_room import make_callable
from convscope.fold.fold import fold
from convscope.fold.identity import FoldedBatchNorm, FoldedBatchNormAct, PartlyFoldedBatchNorm
from convscope.fold.ledger import Folded, Ledger, LedgerEntry, OutputError, Proof, Speed, Timing
from convscope.fold.speed import measure_speed

__all__ = [
    "Folded",
    "FoldedBatchNorm",
    "FoldedBatchNormAct",
    "Ledger",
    "LedgerEntry",
    "OutputError",
    "PartlyFoldedBatchNorm",
    "Proof",
    "Speed",
    "Timing",
    "fold",
    "measure_speed",
]

make_callable(__name__, fold)

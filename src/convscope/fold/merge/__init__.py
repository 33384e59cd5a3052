"""Which parallel branches of a network are one convolution, and what carries that out?

:func:`merge_branches` reads sums of branches off a recorded run: convolutions, batch norms, average pools and
the value itself, all linear functions of one value, become one convolution with the sum of their kernels.
``linear`` and ``layers`` are the tables of operators that it understands.

Limits: branches side by side, not one after the other; zero padding; one kernel must contain all others.
"""

from convscope.fold.merge.merge import merge_branches
from convscope.fold.merge.merged import Merge, Merged, MergedSum, Unmerged
from convscope.fold.merge.modules import MergedAway, MergedBranches

__all__ = [
    "Merge",
    "Merged",
    "MergedAway",
    "MergedBranches",
    "MergedSum",
    "Unmerged",
    "merge_branches",
]

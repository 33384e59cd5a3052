"""The check-up: what is wrong with a network's batch norms, the evidence, and what to do about it.

Answers: do the running statistics fit the data, and what does it cost if they don't; which channels are
dead; which biases do nothing; are the batches large enough; do modes and settings mean what they seem to?

Measuring (:mod:`~convscope.checkup.measuring`) makes an :class:`Observation`; faults are functions of it, in
a table that users can extend with :func:`fault`.

Limits: it sees PyTorch's batch norm operator, from whatever module or function; batch norms written out in
arithmetic, such as ``FrozenBatchNorm2d``, aren't seen. What only a training run shows, :func:`watch` sees.
"""

from convscope.checkup.examine import checkup
from convscope.checkup.expected import expected
from convscope.checkup.judging.faults import fault, fault_names, remove_fault
from convscope.checkup.mending import Left, Mended, Mending, mend, repairable_faults
from convscope.checkup.observed import NormCall, Observation, Population
from convscope.checkup.plan import CheckupPlan, Progress
from convscope.checkup.result import Checkup, NormHealth, StateProof
from convscope.checkup.unchecked import Unchecked
from convscope.checkup.watching import TrainingLog, lightning_callback, watch
from convscope.core.callable_room import make_callable

__all__ = [
    "Checkup",
    "CheckupPlan",
    "Left",
    "Mended",
    "Mending",
    "NormCall",
    "NormHealth",
    "Observation",
    "Population",
    "Progress",
    "StateProof",
    "TrainingLog",
    "Unchecked",
    "checkup",
    "expected",
    "fault",
    "fault_names",
    "lightning_callback",
    "mend",
    "remove_fault",
    "repairable_faults",
    "watch",
]

make_callable(__name__, checkup)

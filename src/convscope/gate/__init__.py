"""Limits that a network has to keep to, for CI: memory, work, faults, batch norms that don't fold.

:func:`gate` takes the readings that its limits need, and says of each whether it is kept; ``Gate.to_junit``
writes what CI services show.

Limits: of one network and one batch; nothing is timed, since CI machines are noisy.
"""

from convscope.core.callable_room import make_callable
from convscope.gate.gate import gate
from convscope.gate.limits import Limits
from convscope.gate.verdict import Check, Gate

__all__ = ["Check", "Gate", "Limits", "gate"]

make_callable(__name__, gate)

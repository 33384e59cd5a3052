"""Watching a user's own training loop: what modes, updates and statistics do from step to step.

:func:`watch` opens the block; :class:`TrainingLog` is what it hands out. Events come from
:mod:`convscope.probe.events`; the ledger gathers them into a
:class:`~convscope.checkup.observed.run.TrainingRun`, of which faults are functions like any others.
"""

from convscope.checkup.watching.lightning import lightning_callback
from convscope.checkup.watching.log import TrainingLog
from convscope.checkup.watching.watch import watch

__all__ = ["TrainingLog", "lightning_callback", "watch"]

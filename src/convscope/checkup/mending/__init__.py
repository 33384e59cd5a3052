"""Mending: the remedies that are safe, applied to a copy, and the check-up again."""

from convscope.checkup.mending.mend import mend
from convscope.checkup.mending.repairs import repairable_faults
from convscope.checkup.mending.result import Left, Mended, Mending

__all__ = ["Left", "Mended", "Mending", "mend", "repairable_faults"]

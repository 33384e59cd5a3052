"""What a real step takes here: seconds per row, and memory, beside what was forecast."""

from convscope.cost.measured.timing import measure
from convscope.cost.measured.values import RowTiming, Seconds, Timings
from convscope.cost.measured.verification import Verification, verify

__all__ = ["RowTiming", "Seconds", "Timings", "Verification", "measure", "verify"]

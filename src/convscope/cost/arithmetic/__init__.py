"""The arithmetic of every operator: multiply–accumulates, and operations that are none.

Importing any part of it registers all rules.
"""

from convscope.cost.arithmetic import attention, recurrent, transforms

__all__ = ["attention", "recurrent", "transforms"]

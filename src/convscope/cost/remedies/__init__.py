"""What would lower the memory of a step, each change simulated anew."""

from convscope.cost.remedies.trials import explain
from convscope.cost.remedies.values import Explanation, Remedy

__all__ = ["Explanation", "Remedy", "explain"]

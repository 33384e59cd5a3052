"""The largest batch that fits into a device's memory."""

from convscope.cost.batch.largest import largest_batch
from convscope.cost.batch.values import LargestBatch

__all__ = ["LargestBatch", "largest_batch"]

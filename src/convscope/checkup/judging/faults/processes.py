"""Faults between processes: statistics of a part of the batch, or different ones in every process."""

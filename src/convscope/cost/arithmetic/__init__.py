"""The arithmetic of every operator: multiply–accumulates, and operations that are none."""

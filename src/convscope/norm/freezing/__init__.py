"""Batch norm that uses its running statistics and never moves them, reversibly."""

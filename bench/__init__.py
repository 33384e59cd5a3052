"""Benchmarks: side by side with a peer in one process run, as ratios."""

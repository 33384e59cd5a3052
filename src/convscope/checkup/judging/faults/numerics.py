"""Faults of arithmetic: half-precision statistics, cancellation, a dominant ε."""

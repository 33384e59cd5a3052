"""Faults that only a training run shows: modes, updates that come twice, drift."""

"""Faults of descent: what a model lost on the way from the network or checkpoint that it was made from."""

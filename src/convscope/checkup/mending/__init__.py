"""Mending: the remedies that are safe, applied to a copy, and the check-up again."""

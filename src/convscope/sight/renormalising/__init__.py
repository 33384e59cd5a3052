"""Keeping filters inside a radius: what a filter is, how often it was scaled back, what that says."""

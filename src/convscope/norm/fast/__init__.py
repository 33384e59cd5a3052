"""Batch norm and the activation behind it, in as few passes over memory as there can be."""

"""Judging: what the measured values mean. Pure functions of an observation; nothing here sees a model."""

"""Watching a user's own training loop: what modes, updates and statistics do from step to step."""

"""How much memory a step takes, when, and for what."""

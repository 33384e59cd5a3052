"""Training with half of the saved activations: what can be had from another saved tensor isn't saved."""

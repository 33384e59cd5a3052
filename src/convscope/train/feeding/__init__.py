"""How images come to a step: their order, their batches, what is random about them."""

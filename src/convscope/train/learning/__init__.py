"""What a step does to the weights: optimizer, learning rate, precision."""

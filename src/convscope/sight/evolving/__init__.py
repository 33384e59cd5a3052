"""How units' strongest images and projections change over a training, and when they stop changing."""

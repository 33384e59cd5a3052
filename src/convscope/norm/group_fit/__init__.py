"""Group norms that come nearest to a trained network's batch norms on data."""

"""The normalisation layers, one a file, and what they refuse."""

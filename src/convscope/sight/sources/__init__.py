"""The kinds of things that images come from, each asked in the same way."""

"""One pass over a data set: every unit's strongest images and its statistics."""

"""Which values of a run hold units, and along which axis."""

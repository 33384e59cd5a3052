"""Faults of what a batch is made of: sorted samples, domains, padding, the wrong axis, samples that leak."""

"""The whole report of one network: what is measured, in which order, and what of it matters most."""

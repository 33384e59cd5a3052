"""Measuring: an observation of a model, from its modules alone or from batches of data as well."""

"""Faults of layers before a batch norm that change its inputs between training and test time: dropout."""

"""Two suites for the check-up: networks with a planted fault each, and healthy ones.

The tests run both, and ``python -m bench checkup`` makes the confusion table of them.
"""

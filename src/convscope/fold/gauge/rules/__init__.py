"""What each operator asks of gauges: a table of rules, one file for each kind of operator.

An operator that isn't in the table is opaque: nothing that it reads or writes may change.
"""

from convscope.fold.gauge.rules import averages, layers, linear, maxima, movement, products

__all__ = ["averages", "layers", "linear", "maxima", "movement", "products"]

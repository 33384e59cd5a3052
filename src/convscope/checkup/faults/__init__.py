"""The faults, by the kind of evidence that they rest on; importing this package registers them."""

# isort: off
# Imported in the order of judgement: of equally severe findings, those of the first come first.
from convscope.checkup.faults import statistics
from convscope.checkup.faults import batch_size
from convscope.checkup.faults import gains
from convscope.checkup.faults import settings
from convscope.checkup.faults import bias

# isort: on
from convscope.checkup.faults.registry import fault, fault_names, judge, remove_fault

__all__ = [
    "batch_size", "bias", "fault", "fault_names", "gains", "judge", "remove_fault", "settings", "statistics",
]  # fmt: skip

"""The faults, by the kind of evidence that they rest on; importing this package registers them."""

# isort: off
# ruff: noqa: F401
# Imported in the order of judgement: of equally severe findings, those of the first come first.
from convscope.checkup.judging.faults import never_move
from convscope.checkup.judging.faults import statistics
from convscope.checkup.judging.faults import young
from convscope.checkup.judging.faults import batch_size
from convscope.checkup.judging.faults import gains
from convscope.checkup.judging.faults import settings
from convscope.checkup.judging.faults import lineage
from convscope.checkup.judging.faults import inherited
from convscope.checkup.judging.faults import averaged
from convscope.checkup.judging.faults import composition
from convscope.checkup.judging.faults import leaking
from convscope.checkup.judging.faults import layout
from convscope.checkup.judging.faults import numerics
from convscope.checkup.judging.faults import upstream
from convscope.checkup.judging.faults import processes
from convscope.checkup.judging.faults import training
from convscope.checkup.judging.faults import updates
from convscope.checkup.judging.faults import bias

# isort: on
from convscope.checkup.judging.faults.registry import fault, fault_names, judge, remove_fault

__all__ = ["fault", "fault_names", "judge", "remove_fault"]

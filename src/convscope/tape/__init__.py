"""One recorded step of any network, on simulated tensors.

Answers: which operators ran, on which values, from which module call, in which phase, and when each
storage lived. The readings (cost, fold) are pure functions of a :class:`Tape`.

Limits: one process, eager execution, default CUDA stream; memory inside an operator isn't seen; see
``LIMITATIONS.md``.
"""

from convscope.tape.accepted import require_module, require_values
from convscope.tape.attribution import Attribution, Frame, Site, decompose, operator_name
from convscope.tape.calls import ModuleCall, OperatorCall, Ref, Storage, Tape, TensorInfo, Value
from convscope.tape.device import Device, device_of
from convscope.tape.plan import TrainingPlan
from convscope.tape.record import record

__all__ = [
    "Attribution",
    "Device",
    "Frame",
    "ModuleCall",
    "OperatorCall",
    "Ref",
    "Site",
    "Storage",
    "Tape",
    "TensorInfo",
    "TrainingPlan",
    "Value",
    "decompose",
    "device_of",
    "operator_name",
    "record",
    "require_module",
    "require_values",
]

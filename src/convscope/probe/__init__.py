"""The tape's addresses in a real run: read or replace named values, in forward or backward.

Answers: what does this value hold, for these images, and what becomes of the network if it held something
else? Check-up and sight use it; nothing else hooks a model.

A user's own loop is listened to by light hooks instead (:mod:`~convscope.probe.events`).

Limits: the calling thread (and autograd's own threads on CUDA); not inside TorchScript or compiled modules.
"""

from convscope.probe.events import listening
from convscope.probe.passes import ForwardPass, Hearing, LayerCall, Listener
from convscope.probe.probe import Probe, Visit, probing, unknown_module

__all__ = [
    "ForwardPass",
    "Hearing",
    "LayerCall",
    "Listener",
    "Probe",
    "Visit",
    "listening",
    "probing",
    "unknown_module",
]

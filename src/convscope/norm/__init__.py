"""How are activations normalised? Layers of the normalisation family, on one core.

Batch, layer, instance and group norm are one computation (``function``) over different axes (``axes``), with
statistics that stay right for large means and in both memory layouts (``statistics``). The layers take
PyTorch's names, arguments and state dicts, so they stand in for ``torch.nn``'s. Local response norm is
AlexNet's.

Limits: statistics of one process (none are exchanged between devices), no ``torch.jit.script``, no
forward-mode differentiation. Accuracy and speed have been measured on CPUs only: a training step of batch
norm takes about as long as PyTorch's on contiguous maps, and two to four times as long on channels_last
ones, where PyTorch's is inaccurate.
"""

from convscope.norm.axes import MEMBERS, Member
from convscope.norm.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.choose import KINDS, normalisation
from convscope.norm.function import Normalised, normalise
from convscope.norm.group import GroupNorm
from convscope.norm.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from convscope.norm.layer import LayerNorm
from convscope.norm.response import LocalResponseNorm
from convscope.norm.statistics import Moments, moments

__all__ = [
    "KINDS",
    "MEMBERS",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "Member",
    "Moments",
    "Normalised",
    "moments",
    "normalisation",
    "normalise",
]

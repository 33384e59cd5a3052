"""How are activations normalised, and how are their statistics kept right?

The layers of the family are one computation (``engine``) over different axes (``axes``); they take PyTorch's
names, arguments and state dicts, so they stand in for ``torch.nn``'s. The repairs work on any network, with
PyTorch's layers too: frozen statistics (``freezing``), statistics estimated anew (``recalibration``), another
kind of layer (``conversion``, ``group_fit``), corrected running averages (``momentum``). And they train with
less memory, to the same bits (``lean``), and in less time (``fast``).

==================  =========================================================================================
folder              idea
==================  =========================================================================================
``engine``          statistics, the two passes and their operators; running averages; exchange with processes
``layers``          one layer of the family a file, and what layers refuse
``freezing``        batch norm that uses its running statistics, whatever ``train()`` says
``recalibration``   running statistics that are those of the data
``conversion``      one kind of layer turned into another
``group_fit``       group norms that come nearest to batch norms
``lean``            training with half of the saved activations
``fast``            kernels for batch norm and the activation behind it
==================  =========================================================================================

Limits: no ``torch.jit.script``, no forward-mode differentiation. Accuracy and speed have been measured on
CPUs only.
"""

from convscope.norm.axes import GHOST, MEMBERS, Member
from convscope.norm.choose import KINDS, normalisation
from convscope.norm.conversion.around import around
from convscope.norm.conversion.convert import convert
from convscope.norm.conversion.result import Conversion, Converted, Difference
from convscope.norm.engine.function import Normalised, normalise
from convscope.norm.engine.running import NotFiniteWarning
from convscope.norm.engine.statistics import Moments, moments
from convscope.norm.fast.choosing import kernels
from convscope.norm.fast.network import Fast, FastLayer, fast
from convscope.norm.freezing.freeze import freeze, is_frozen, unfreeze
from convscope.norm.freezing.result import Frozen, FrozenLayer
from convscope.norm.group_fit.fit import GroupFit, fit_groups
from convscope.norm.layers.activated import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.layers.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from convscope.norm.layers.group import GroupNorm
from convscope.norm.layers.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from convscope.norm.layers.layer import LayerNorm
from convscope.norm.layers.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, Relaxation
from convscope.norm.layers.response import LocalResponseNorm
from convscope.norm.layers.sync import SyncBatchNorm
from convscope.norm.lean.lean import Lean, NothingSavedWarning, at_full_size, is_lean, lean
from convscope.norm.lean.result import LeanLayer, Savings
from convscope.norm.momentum import MomentumCorrection, correct_momentum, corrected_momentum
from convscope.norm.recalibration.plan import RecalibrationPlan
from convscope.norm.recalibration.recalibrate import recalibrate
from convscope.norm.recalibration.result import HeldOut, RecalibratedLayer, Recalibration, Residual

__all__ = [
    "GHOST",
    "KINDS",
    "MEMBERS",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "Conversion",
    "Converted",
    "Difference",
    "Fast",
    "FastLayer",
    "Frozen",
    "FrozenLayer",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "GroupFit",
    "GroupNorm",
    "HeldOut",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "Lean",
    "LeanLayer",
    "LocalResponseNorm",
    "Member",
    "Moments",
    "MomentumCorrection",
    "Normalised",
    "NotFiniteWarning",
    "NothingSavedWarning",
    "RecalibratedLayer",
    "Recalibration",
    "RecalibrationPlan",
    "Relaxation",
    "Residual",
    "Savings",
    "SyncBatchNorm",
    "around",
    "at_full_size",
    "convert",
    "correct_momentum",
    "corrected_momentum",
    "fast",
    "fit_groups",
    "freeze",
    "is_frozen",
    "is_lean",
    "kernels",
    "lean",
    "moments",
    "normalisation",
    "normalise",
    "recalibrate",
    "unfreeze",
]

"""What a check-up has measured, before anything is judged: values without a reference to the model.

:class:`~convscope.checkup.observed.observation.Observation` holds all of it; faults are functions of it.
"""

from convscope.checkup.observed.bias import BiasGradient
from convscope.checkup.observed.gap import Gap, LayerGap
from convscope.checkup.observed.groups import GroupCall
from convscope.checkup.observed.inputs import DropoutShift, InputFacts, PaddedInputs
from convscope.checkup.observed.loader import LoaderFacts
from convscope.checkup.observed.norm import NormCall
from convscope.checkup.observed.observation import Observation
from convscope.checkup.observed.optimizer import OptimizerFacts
from convscope.checkup.observed.population import Population
from convscope.checkup.observed.processes import ProcessFacts
from convscope.checkup.observed.reference import ReferenceFacts, ReferenceNorm
from convscope.checkup.observed.run import CallShift, TrainingRun

__all__ = [
    "BiasGradient",
    "CallShift",
    "DropoutShift",
    "Gap",
    "GroupCall",
    "InputFacts",
    "LayerGap",
    "LoaderFacts",
    "NormCall",
    "Observation",
    "OptimizerFacts",
    "PaddedInputs",
    "Population",
    "ProcessFacts",
    "ReferenceFacts",
    "ReferenceNorm",
    "TrainingRun",
]

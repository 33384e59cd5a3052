"""Everything that a check-up has measured about one model."""

from dataclasses import dataclass

from convscope.checkup.observed.bias import BiasGradient
from convscope.checkup.observed.gap import Gap, LayerGap
from convscope.checkup.observed.groups import GroupCall
from convscope.checkup.observed.loader import LoaderFacts
from convscope.checkup.observed.norm import NormCall
from convscope.checkup.observed.optimizer import OptimizerFacts
from convscope.checkup.observed.processes import ProcessFacts
from convscope.checkup.observed.reference import ReferenceFacts
from convscope.checkup.observed.run import TrainingRun
from convscope.checkup.unchecked import Unchecked
from convscope.tape import Tape


@dataclass(frozen=True, eq=False)
class Observation:
    """Everything measured about one model; nothing in it refers to the model itself.

    Attributes:
        norms: batch norm calls, in order of execution (of definition, without a recording).
        biases: of convolutions and linear layers, as met in a training step; empty at static depth.
        gap: see :class:`Gap`; None if it wasn't measured.
        attribution: of a significant gap, by layer; empty if there is none.
        optimizer: None if none was given.
        tape: the recording of an evaluation run, or None.
        training: whether the model was given in training mode.
        num_samples, num_batches: what was run.
        unchecked: what could not be measured, and why.
        groups: group norm calls; empty without a recording.
        loader: None if the data isn't a DataLoader.
        processes: None in a single process.
        reference: None if none was given.
        run: of a watched training loop, or None.
        averaged: class of the wrapper that averages weights, if the model is one; empty if not.
        per_sample: what asks for gradients of single samples, such as ``"opacus"``; empty if nothing does.
        loss_coupling: by how much the loss's gradient for one sample's outputs depends on the others' in the
            batch, 0 for a sum over samples; None if it wasn't measured.
    """

    norms: tuple[NormCall, ...]
    biases: tuple[BiasGradient, ...] = ()
    gap: Gap | None = None
    attribution: tuple[LayerGap, ...] = ()
    optimizer: OptimizerFacts | None = None
    tape: Tape | None = None
    training: bool = False
    num_samples: int = 0
    num_batches: int = 0
    unchecked: tuple[Unchecked, ...] = ()
    groups: tuple[GroupCall, ...] = ()
    loader: LoaderFacts | None = None
    processes: ProcessFacts | None = None
    reference: ReferenceFacts | None = None
    run: TrainingRun | None = None
    averaged: str = ""
    per_sample: str = ""
    loss_coupling: float | None = None

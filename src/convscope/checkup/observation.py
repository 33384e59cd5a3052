"""What a check-up has measured, before anything is judged; faults are functions of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.checkup.population import Population
from convscope.checkup.result import Unchecked
from convscope.tape import Tape


@dataclass(frozen=True, eq=False)
class NormCall:
    """One call of a batch norm: what it is made of and what went through it.

    Per-channel tensors are float64 copies on the CPU.

    Attributes:
        address: see :class:`convscope.checkup.result.NormHealth`.
        path: the module that it belongs to.
        operator: address of the operator call; None at static depth without a recording.
        channels, eps, momentum: as the layer has them; momentum is None for a cumulative average too.
        num_batches_tracked: the layer's counter, or None.
        gamma, beta: affine parameters, or None.
        running_mean, running_variance: running statistics, or None.
        statistics_dtype: dtype of the running statistics, or None.
        frozen: whether it normalises by constants in training too, by its module's mode.
        tracks: whether it moves its running statistics when it trains; None for a functional call.
        training: the module's own mode as the model was given; None for a functional call.
        affine_names: full names of gamma and beta, as in the model's parameters.
        trains: whether gamma or beta requires gradients; None without affine parameters.
        feeds_relu: whether nothing but ReLUs reads its output; None if that isn't known.
        population: of its inputs, all in evaluation mode; None at static depth.
        batch_population: the same with batch norms before it using batch statistics, as in training.
    """

    address: str
    path: str
    operator: str | None
    channels: int
    eps: float
    momentum: float | None
    num_batches_tracked: int | None
    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor | None
    running_variance: Tensor | None
    statistics_dtype: torch.dtype | None
    frozen: bool
    tracks: bool | None
    training: bool | None
    affine_names: tuple[str, ...]
    trains: bool | None
    feeds_relu: bool | None = None
    population: Population | None = None
    batch_population: Population | None = None


@dataclass(frozen=True)
class BiasGradient:
    """What a random projection of the outputs, differentiated in training mode, says about a bias.

    Attributes:
        name: the parameter.
        address: the first module call that adds it.
        channels: its elements.
        signed: Σ over channels of |Σ dy|: the gradient of the bias.
        absolute: Σ |dy|, what that gradient would be if nothing cancelled.
        norms: the batch norms that alone read what it was added to; empty if others do.
        running_mean: name of the buffer that can take the bias in exactly, since nothing else is normalised
            by it; None if there is none.
        precise: whether gradients were in float32 or wider.
    """

    name: str
    address: str
    channels: int
    signed: float
    absolute: float
    norms: tuple[str, ...]
    running_mean: str | None
    precise: bool


@dataclass(frozen=True)
class Gap:
    """Losses on the same batches, dropout off.

    Attributes:
        eval_loss: in evaluation mode, with running statistics.
        batch_loss: with batch statistics.
        error: standard error of their difference; None where it can't be estimated.
    """

    eval_loss: float
    batch_loss: float
    error: float | None

    @property
    def difference(self) -> float:
        """``eval_loss - batch_loss``: positive if the network is worse at test time."""
        return self.eval_loss - self.batch_loss


@dataclass(frozen=True)
class OptimizerFacts:
    """What is to be known about the optimizer.

    Attributes:
        decay: weight decay by name of each parameter of the model that it holds.
        num_foreign: parameters that it holds and that aren't the model's.
        missing: names of the model's trainable parameters that it doesn't hold.
    """

    decay: dict[str, float]
    num_foreign: int
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Observation:
    """Everything measured about one model; nothing in it refers to the model itself.

    Attributes:
        norms: batch norm calls, in order of execution (of definition, without a recording).
        biases: of convolutions and linear layers, as met in a training step; empty at static depth.
        gap: see :class:`Gap`; None if it wasn't measured.
        optimizer: None if none was given.
        tape: the recording of an evaluation run, or None.
        training: whether the model was given in training mode.
        num_samples, num_batches: what was run.
        unchecked: what could not be measured, and why.
    """

    norms: tuple[NormCall, ...]
    biases: tuple[BiasGradient, ...] = ()
    gap: Gap | None = None
    optimizer: OptimizerFacts | None = None
    tape: Tape | None = None
    training: bool = False
    num_samples: int = 0
    num_batches: int = 0
    unchecked: tuple[Unchecked, ...] = ()

"""One call of a batch norm: what it is made of, and what went through it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.checkup.observed.inputs import InputFacts
from convscope.checkup.observed.population import Population


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
        inputs: what else its inputs show; None at static depth.
        kind: the module's class, such as ``"torch.nn.BatchNorm2d"``; empty for a functional call.
        counter_dtype: dtype of the layer's counter, or None.
        updates_per_step: updates of the running averages in an optimizer step that ``momentum`` is meant for:
            more than 1 if :func:`convscope.norm.correct_momentum` has set it so.
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
    inputs: InputFacts | None = None
    kind: str = ""
    counter_dtype: torch.dtype | None = None
    updates_per_step: int = 1

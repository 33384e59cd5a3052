"""What a user's own training loop has shown while it was watched.

A *call* is one run of a layer in a forward pass. A layer that activation checkpointing runs again during the
backward pass is *recomputed*; that isn't counted as a call. Standard deviations are those of the layer's
inputs, by its running variance.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class NormRun:
    """What one batch norm did in the optimizer steps.

    Attributes:
        path: the module's.
        updates: of its running averages by forward passes, in the most frequent kind of step.
        recomputed: updates by recomputation during backward passes, in the same.
        num_values: values per channel in its smallest call in training mode (N · H · W); 0 without any.
        num_images: N of that call.
        effective_values: how many independent values a call is worth: σ² over the variance of batch means
            between the calls of one step, harmonic mean over channels; None with one call a step.
        frozen_steps: steps in which it ran in evaluation mode while the network was in training mode.
        undone_at: the step, from 1, in which it began to train after such steps without a change of
            requires_grad; None if that hasn't happened.
        undone_shift: how far its running mean has moved since then, in standard deviations (largest of the
            channels).
        refrozen: how often it was in evaluation mode again after ``undone_at``, for a step or more.
    """

    path: str
    updates: int
    recomputed: int
    num_values: int = 0
    num_images: int = 0
    effective_values: float | None = None
    frozen_steps: int = 0
    undone_at: int | None = None
    undone_shift: float = 0.0
    refrozen: int = 0


@dataclass(frozen=True)
class StrayCalls:
    """Runs of the network in training mode that trained nothing, but moved running statistics.

    Attributes:
        count: how many.
        layers: paths of the batch norms whose statistics they moved.
        shift: how far they moved a running mean, all together, in standard deviations; largest of channels
            and layers.
        log_variance: the same of the running variances: |log(after / before)|.
        worst: path of the layer that was moved furthest, by what is tolerated of either.
        constant: how many of them were fed one value throughout, such as zeros.
        before_steps: how many steps had been made at the first of them.
        with_gradients: for how many of them gradients were enabled, but none came back. How far these moved
            a layer is known from the second one between two steps on; it counts for nothing before.
        blocks: between how many pairs of steps they lay; 0 before the first step.
        longest: largest number of them between two steps.
    """

    count: int = 0
    layers: tuple[str, ...] = ()
    shift: float = 0.0
    log_variance: float = 0.0
    worst: str = ""
    constant: int = 0
    before_steps: int = 0
    with_gradients: int = 0
    blocks: int = 0
    longest: int = 0


@dataclass(frozen=True)
class EvaluationSteps:
    """Optimizer steps on gradients from passes in which the whole network was in evaluation mode.

    Attributes:
        count: how many, of those in which batch norms' γ or β, or over nine tenths of the parameters, had
            gradients.
        norms: batch norms that ran in evaluation mode.
        affine: how many of them had a gradient at γ or β in the last such step.
        share: share of the network's parameters that had one.
        dropouts: dropout layers with a probability above 0 that were switched off too.
    """

    count: int = 0
    norms: int = 0
    affine: int = 0
    share: float = 0.0
    dropouts: int = 0


@dataclass(frozen=True)
class CallShift:
    """How the inputs of a batch norm differ between its calls in one optimizer step.

    Both numbers are root mean squares over channels of means over the sampled steps, without what their
    sampling errors contribute: two calls with inputs of one distribution give 0 on average.

    Attributes:
        path: the batch norm's.
        shift: difference of the batch means of two calls, in standard deviations; of the pair, the first call
            and another one, for which it is largest.
        error: standard error of ``shift``, jackknife over the sampled steps.
        log_variance: difference of the logarithms of the batch variances, same pair.
        calls: calls per step.
        log_variance_error: standard error of ``log_variance``.
        between: numbers of the two calls, from 1.
        num_steps: sampled steps that it rests on, at least 3.
    """

    path: str
    shift: float
    error: float
    log_variance: float
    calls: int
    log_variance_error: float = 0.0
    between: tuple[int, int] = (1, 2)
    num_steps: int = 0


@dataclass(frozen=True)
class WeightRun:
    """A weight whose result a batch norm reads, so that its scale is without effect on the network.

    Attributes:
        name: the parameter's.
        norm: path of the batch norm.
        start, end: its norm ‖w‖ at the first and the last sampled step.
        update: ‖Δw‖ / ‖w‖ of one optimizer step, whatever the optimizer: median over the later half of the
            sampled steps with a learning rate above 0; NaN if there was none. Of the first filters, up to
            65,536 values.
        invariance: |w · ∇w| / (‖w‖ ‖∇w‖) of these, median; 0 where the scale is without effect, NaN without
            gradients.
        chance: what that would be for a gradient of random direction, about 1 / √(number of those weights).
        num_steps: sampled steps.
        rate: largest learning rate among them.
    """

    name: str
    norm: str
    start: float
    end: float
    update: float
    invariance: float
    chance: float
    num_steps: int
    rate: float


@dataclass(frozen=True)
class Percentiles:
    """The distribution of one channel over training: 15 %, 50 % and 85 %, of at most 4,096 values each.

    Attributes:
        path: of the layer.
        channel: which of its channels, from 0: the one whose variance was the median of all at the start.
        of: ``"input"`` or ``"output"`` of the layer; the output of a batch norm, or of a convolution or
            linear layer in a network without batch norm, is what a non-linearity reads.
        steps: optimizer steps that had been made at each sample.
        low, median, high: the percentiles, in the layer's own unit; NaN where the values are.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, figure 1(b, c).
    """

    path: str
    channel: int
    of: Literal["input", "output"]
    steps: tuple[int, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class TrainingRun:
    """A stretch of training, as :func:`convscope.checkup.watching.watch` saw it.

    Attributes:
        num_steps: optimizer steps.
        num_sampled: steps that were looked at closely.
        patterns: kinds of sampled steps and how many there were of each: ``F`` for a forward pass in training
            mode, ``B`` for a backward pass, ``Z`` for gradients set to zero between two of them. ``"FB"`` is
            the usual step, ``"FBFB"`` accumulates two batches, ``"FFB"`` has two inputs for one loss.
        accumulated: batches whose gradients were accumulated in a step, one after another; 1 if they
            usually weren't.
        norms: the batch norms that ran, in order of their first run.
        evaluations: forward passes in training mode that no gradient came of, once training had begun.
        interleaved: the same, but one or few of them with at least half of the steps: a part of the training.
        dummies: forward passes in training mode before the first step that no backward pass reached.
        evaluation_steps: steps that trained the network in evaluation mode.
        input_gradients: backward passes with ``create_graph=True`` to inputs of the network, through batch
            norms that used batch statistics.
        input_gradient_norms: paths of those batch norms.
        call_shifts: for every batch norm with several calls per step; empty with fewer than 3 sampled steps.
        weights: those that batch norms read.
        percentiles: of values over training, for pictures.
        non_finite: sampled steps whose gradients at the network's outputs were NaN or infinite.
        moved: paths of the batch norms whose γ or β have changed, by whomever.
    """

    num_steps: int
    num_sampled: int = 0
    patterns: dict[str, int] = field(default_factory=dict)
    accumulated: int = 1
    norms: tuple[NormRun, ...] = ()
    evaluations: StrayCalls = field(default_factory=StrayCalls)
    interleaved: StrayCalls = field(default_factory=StrayCalls)
    dummies: StrayCalls = field(default_factory=StrayCalls)
    evaluation_steps: EvaluationSteps = field(default_factory=EvaluationSteps)
    input_gradients: int = 0
    input_gradient_norms: tuple[str, ...] = ()
    call_shifts: tuple[CallShift, ...] = ()
    weights: tuple[WeightRun, ...] = ()
    percentiles: tuple[Percentiles, ...] = ()
    non_finite: int = 0
    moved: frozenset[str] = frozenset()

"""What a check-up returns: findings, the gap, and one row per batch norm call."""

from dataclasses import dataclass
from typing import Literal

from convscope.checkup.given import Given
from convscope.checkup.observed.gap import LayerGap
from convscope.checkup.observed.run import Percentiles
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Finding
from convscope.core.fingerprint import Fingerprint
from convscope.core.result import Result

Depth = Literal["static", "data", "training"]
"""How deep a check-up went.

``static``: modules, optimizer and recorded data flow; ``data``: real batches as well; ``training``: modules,
optimizer, and the user's own training loop while it was watched.
"""


@dataclass(frozen=True)
class StateProof:
    """Hashes of a model's state before and after a check-up.

    Attributes:
        before, after: see :class:`~convscope.core.fingerprint.Fingerprint`.
        unchanged: whether all of them are the same.
    """

    before: Fingerprint
    after: Fingerprint
    unchanged: bool


@dataclass(frozen=True)
class Channels:
    """Some of a batch norm's channels, one value each, to five significant digits: what pictures are made of.

    Of a network with many or wide layers not every channel is here: first those that are dead or furthest
    off, then others, evenly spaced.

    Attributes:
        number: which channels, from 0, ascending.
        mean: of the layer's inputs over all batches in evaluation mode; None without data.
        running_mean: what the layer uses at test time; None if it has none.
        mean_error: standard error of ``mean - running_mean``, in the inputs' unit; infinite for one image.
        variance: of the layer's inputs.
        running_variance: what the layer uses at test time.
        variance_error: standard error of the logarithm of ``variance / running_variance``.
        gamma, beta: None without affine parameters.
        dead: whether the following ReLU always sets it to zero; None if that isn't known.
    """

    number: tuple[int, ...]
    mean: tuple[float, ...] | None
    running_mean: tuple[float, ...] | None
    mean_error: tuple[float, ...] | None
    variance: tuple[float, ...] | None
    running_variance: tuple[float, ...] | None
    variance_error: tuple[float, ...] | None
    gamma: tuple[float, ...] | None
    beta: tuple[float, ...] | None
    dead: tuple[bool, ...] | None


@dataclass(frozen=True)
class NormHealth:
    """One call of a batch norm, measured.

    What can't be known at the check-up's depth is None. The two residuals compare the running statistics
    with those of the layer's own inputs in evaluation mode, over all batches given; each is that of the
    worst channel.

    Attributes:
        address: of the call: the module's call (``layer1.0.bn1#1``), or the operator's where a batch norm is
            called as a function (``self#1:batch_norm.1``).
        path: the module that the call belongs to, ``"self"`` for the network itself.
        channels: number of channels C.
        frozen: whether it normalises by constants even in training, so that its running statistics and
            batches aren't judged.
        num_values: m, values per channel in the largest batch given (images × height × width).
        effective_values: how many independent values the m are worth: σ² over the variance of batch means.
        momentum: weight of the new value in the running averages; None also for a cumulative average.
        eps: ε, added to the variance.
        num_batches_tracked: how many batches the running averages have seen.
        mean_residual: max over channels of |μ − running mean| / √(running variance + ε), in standard
            deviations.
        mean_error: standard error of that number.
        variance_residual: max over channels of |log((σ² + ε) / (running variance + ε))|.
        variance_error: standard error of that number.
        stale_channels: channels in which either residual is beyond doubt and tolerance.
        dead_channels: channels that the following ReLU always sets to zero.
        gamma_range: smallest, median and largest |γ|; None without affine parameters.
        single: some of the channels, one by one.
    """

    address: str
    path: str
    channels: int
    frozen: bool
    num_values: int | None
    effective_values: float | None
    momentum: float | None
    eps: float
    num_batches_tracked: int | None
    mean_residual: float | None
    mean_error: float | None
    variance_residual: float | None
    variance_error: float | None
    stale_channels: int | None
    dead_channels: int | None
    gamma_range: tuple[float, float, float] | None
    single: Channels | None = None


@dataclass(frozen=True)
class Checkup(Result):
    """What is wrong with a network's batch norms, with evidence and remedy.

    Attributes:
        findings: errors first, then warnings, advice and facts; by measured effect within each.
        gap: loss in evaluation mode minus loss with batch statistics on the same batches (dropout off in
            both), in the loss's own unit; None without labels, data, or a batch norm that trains.
        gap_error: standard error of the gap; None where it can't be estimated.
        eval_loss: mean loss in evaluation mode, with running statistics.
        batch_loss: mean loss with batch statistics.
        loss_of: which of the network's several outputs these are of, such as ``"output 1 of 2, of shape
            (images, 3)"``; empty if there is one, or the loss is the user's or the network's own.
        loss_unit: of these, and of the gap: ``"nats"`` for a classification, ``"loss"`` for a loss whose unit
            isn't known; empty without a loss.
        layers: one row per batch norm call, in order of execution.
        num_samples: samples in the batches that were run; 0 at static depth.
        num_batches: how many batches those were.
        depth: see :data:`Depth`.
        unchecked: what could not be checked, and why.
        expected: findings that were declared with :func:`convscope.checkup.expected`.
        attribution: of a significant gap, how much of it each layer is answerable for; largest first, but
            layers to blame before those that are only misled, or whose share may be chance.
        state: hashes of the model before and after; None for a watched training run, which changes it.
        percentiles: of values over a watched training run.
        given: what was checked, and on which images; None where only objects were given, as in Python.
    """

    findings: tuple[Finding, ...]
    gap: float | None
    gap_error: float | None
    eval_loss: float | None
    batch_loss: float | None
    layers: tuple[NormHealth, ...]
    num_samples: int
    num_batches: int
    depth: Depth
    unchecked: tuple[Unchecked, ...]
    expected: tuple[Finding, ...] = ()
    attribution: tuple[LayerGap, ...] = ()
    state: StateProof | None = None
    percentiles: tuple[Percentiles, ...] = ()
    given: Given | None = None
    loss_of: str = ""
    loss_unit: str = ""

"""What else the inputs of one batch norm call show, beside their statistics."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaddedInputs:
    """Positions that are padding, as the network's own inputs show it, and what they do to the statistics.

    Attributes:
        share: part of the positions that is padding, over all batches.
        mean_shift: max over channels of |mean of all − mean of the valid| / standard deviation of the valid.
        variance_shift: max over channels of |log(variance of all / variance of the valid)|.
    """

    share: float
    mean_shift: float
    variance_shift: float


@dataclass(frozen=True)
class DropoutShift:
    """Dropout upstream with no batch norm in between, and what it does to the variance.

    Attributes:
        sources: addresses of the dropout calls.
        log_ratio: median over channels of log(variance with dropout / variance without).
        error: its standard error.
    """

    sources: tuple[str, ...]
    log_ratio: float
    error: float


@dataclass(frozen=True)
class InputFacts:
    """Measured on the inputs of one batch norm call.

    Attributes:
        axis_shares: part of the variance that each axis but that of images explains by itself, channels
            first; empty where there is only the one.
        axis_roughness: von Neumann's ratio of the means by index along each of these axes: about 2 if
            neighbours have nothing to do with one another, as channels, and near 0 for positions of pictures.
        mean_to_spread: κ, the largest |μ| / σ of any channel.
        variance_error: largest relative error, over channels, of the batch variance that PyTorch's operator
            computes from these inputs as they lie in memory, against float64; None if it wasn't run.
        padded: see :class:`PaddedInputs`; None if the inputs have no padding that can be told.
        dropout: see :class:`DropoutShift`; None without dropout upstream.
    """

    axis_shares: tuple[float, ...] = ()
    axis_roughness: tuple[float, ...] = ()
    mean_to_spread: float = 0.0
    variance_error: float | None = None
    padded: PaddedInputs | None = None
    dropout: DropoutShift | None = None

"""Faults of what the positions of a batch norm's inputs are: padding, or another axis than the channels'."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Observation, PaddedInputs
from convscope.core.finding import Evidence, Finding
from convscope.tape import OperatorCall, Tape

# In 15 networks of timm and torchvision, on photographs and on noise, no axis but the channels' explains more
# than 0.011 of the variance anywhere (torch 2.13, timm 1.0.31, torchvision 0.28, untrained weights).
_OTHER_SHARE = 0.15
_RAW_SHARE = 0.5  # of the network's own inputs, whose positions may well differ
_TIMES = 4.0
# Channels come in no order (a ratio of 2); positions of pictures and of series are like their neighbours.
_ROUGH = 1.0
_PICTURE_AXES, _PICTURE_CHANNELS = 4, (1, 3)
_MOVES_AXES = frozenset(
    {
        "addmm", "as_strided", "bmm", "col2im", "embedding", "flip", "gather", "im2col", "index", "linear",
        "matmul", "mm", "permute", "pixel_shuffle", "pixel_unshuffle", "reshape", "t", "transpose", "unfold",
        "view",
    }
)  # fmt: skip


@fault("padding-in-statistics")
def padding_in_statistics(observation: Observation) -> Iterator[Finding]:
    """Padding takes part in the statistics and changes them: outputs depend on how long the others are.

    Effect: by how much, over what a running mean or variance may be off.
    """
    found = []
    for norm in observation.norms:
        padded = None if norm.inputs is None or norm.frozen else norm.inputs.padded
        if padded is None:
            continue
        effect = max(padded.mean_shift / MEAN_TOLERANCE, padded.variance_shift / VARIANCE_TOLERANCE)
        if effect > 1:
            found.append((effect, norm, padded))
    for effect, norm, padded in sorted(found, key=lambda entry: -entry[0]):
        yield _padding_finding(effect, norm, padded)


@fault("wrong-axis")
def wrong_axis(observation: Observation) -> Iterator[Finding]:
    """Another axis than the one that the layer takes for channels explains the variance of its inputs.

    As where (N, L, C) is given to a BatchNorm1d, which takes (N, C, L), or (N, H, W, C) to a BatchNorm2d. An
    axis whose means run smoothly is one of positions: centred pictures, series with a trend.

    Not behind a convolution, which puts channels along axis 1 itself, unless axes are moved after it; and not
    of pictures that are the network's own inputs. There, positions do have means of their own.
    """
    for norm in observation.norms:
        shares = norm.inputs.axis_shares if norm.inputs is not None else ()
        if norm.frozen or norm.channels < 2 or len(shares) < 2:
            continue
        most = _RAW_SHARE if _reads_inputs(observation, norm) else _OTHER_SHARE
        rough = norm.inputs.axis_roughness if norm.inputs is not None else ()
        other = max((share for share, ratio in zip(shares[1:], rough[1:]) if ratio > _ROUGH), default=0.0)
        if other > most and other > _TIMES * shares[0] and not _has_channels_first(observation, norm):
            yield _axis_finding(norm, shares, shares.index(other, 1), other / most)


def _reads_inputs(observation: Observation, norm: NormCall) -> bool:
    """Whether a layer normalises the network's inputs as they are, or their axes in another order."""
    tape = observation.tape
    call = None if tape is None or norm.operator is None else tape.find(norm.operator)
    if tape is None or not isinstance(call, OperatorCall):
        return False
    value = call.tensor("input")
    return value is not None and _is_input(tape, value)


def _has_channels_first(observation: Observation, norm: NormCall) -> bool:
    """Whether what makes the inputs says that axis 1 is that of channels: a convolution, or a picture."""
    tape = observation.tape
    call = None if tape is None or norm.operator is None else tape.find(norm.operator)
    value = call.tensor("input") if isinstance(call, OperatorCall) else None
    while tape is not None and value is not None:
        made = tape.values[value]
        maker = tape.producer(value)
        if maker is None:
            pictures = len(made.shape) == _PICTURE_AXES and made.shape[1] in _PICTURE_CHANNELS
            return pictures and min(made.shape[2:]) > made.shape[1] and _is_input(tape, value)
        if maker.op == "convolution":
            return True
        before = max(maker.inputs, key=lambda index: tape.values[index].numel, default=None)
        value = before if before is not None and _keeps_axes(tape, maker, before, value) else None
    return False


def _keeps_axes(tape: Tape, maker: OperatorCall, before: int, after: int) -> bool:
    """Whether an operator leaves samples, channels and positions where they were."""
    one, other = tape.values[before].shape, tape.values[after].shape
    return maker.op not in _MOVES_AXES and len(one) == len(other) and one[0] == other[0]


def _is_input(tape: Tape, value: int) -> bool:
    return tape.values[value].storage in {tape.values[index].storage for index in tape.inputs}


def _padding_finding(effect: float, norm: NormCall, padded: PaddedInputs) -> Finding:
    return Finding(
        "padding-in-statistics",
        "warning",
        norm.address,
        (
            Evidence(
                "padding", padded.share, "1", "part of the positions, as the inputs' constant ends show"
            ),
            Evidence(
                "shift of the mean", padded.mean_shift, "σ", "all positions against content, worst channel"
            ),
            Evidence("shift of the log variance", padded.variance_shift, "1", "the same"),
        ),
        f"{padded.share:.0%} of the positions are padding, which shifts means by up to "
        f"{padded.mean_shift:.2g} σ (tolerance {MEAN_TOLERANCE:.2g}) and log variances by up to "
        f"{padded.variance_shift:.2g} (tolerance {VARIANCE_TOLERANCE:.2g}) from those of "
        "the content: what comes out for a sample depends on how much it and the others are padded",
        "batches of samples of like lengths; or cs.norm.convert(model, 'batch'), whose layers take a mask: "
        "norm(x, mask), True for content",
        "pytorch issue 70529 (batch norm has no mask)",
        effect=effect,
    )


def _axis_finding(norm: NormCall, shares: tuple[float, ...], index: int, effect: float) -> Finding:
    axis = 1 + index
    ending = axis == len(shares)
    order = (0, axis, *(other for other in range(1, len(shares) + 1) if other != axis))
    back = tuple(order.index(axis) for axis in range(len(order)))
    return Finding(
        "wrong-axis",
        "warning",
        norm.address,
        (
            Evidence("variance explained by axis 1", shares[0], "1", "Var(means by index) / Var(values)"),
            Evidence(f"variance explained by axis {axis}", shares[axis - 1], "1", "the same"),
        ),
        f"axis {axis}{', the last one,' if ending else ''} explains {shares[axis - 1]:.0%} of the variance "
        f"of the inputs, and axis 1, by which this layer normalises, {shares[0]:.1%}: the channels seem to "
        f"lie along axis {axis}",
        f"x.permute{order} before the layer and .permute{back} after it, or torch.nn.LayerNorm over the "
        "channels",
        "torch.nn.BatchNorm1d documentation: (N, C) or (N, C, L)",
        effect=effect,
    )

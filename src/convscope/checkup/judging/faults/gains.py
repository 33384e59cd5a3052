"""Faults of gamma and beta: channels that the following ReLU always sets to zero."""

from collections.abc import Iterator

import torch

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.remedies import are_functions
from convscope.checkup.observed import NormCall, Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

_SMALL_GAIN = 1e-3  # of what the layer's other gains are
_TINY_GAIN = 1e-4  # whatever the others are: gains start at 1
_REACH = 4.0  # normalised inputs beyond ±4 are rare
_FEWEST_IMAGES = 100
_REVIVE = (
    "if the running statistics are stale, cs.norm.recalibrate(model, loader); else set their γ to 1 and β to "
    "0, recalibrate, and train on at a lower learning rate, or prune them"
)
_REVIVE_FUNCTION = (
    "if the running statistics are stale, estimate them anew; else set their γ to 1 and β to 0, and train on "
    "at a lower learning rate, or prune them"
)
_SLIMMING = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, arXiv 1708.06519"


def dead_by_gain(norm: NormCall) -> torch.Tensor | None:
    """Return which channels have no gain and no positive offset before a ReLU; None if that can't be known.

    |γ| is below 10⁻⁴, or below 10⁻³ of the layer's usual gain, and β + 4 |γ| ≤ 0. Zero-initialised gains of
    residual branches aren't dead: no ReLU reads them alone.
    """
    if norm.feeds_relu is None or norm.gamma is None or norm.beta is None:
        return None
    gain_C = norm.gamma.abs()
    small_C = gain_C < max(_SMALL_GAIN * _usual_gain(gain_C), _TINY_GAIN)
    return small_C & (norm.beta + _REACH * gain_C <= 0) & torch.tensor(norm.feeds_relu)


def _usual_gain(gain_C: torch.Tensor) -> float:
    """The median of the gains that count beside the largest, however many channels are dead."""
    counts_C = gain_C >= _SMALL_GAIN * gain_C.max()
    return float(gain_C[counts_C].median()) if bool(counts_C.any()) else 0.0


def dead_on_data(norm: NormCall) -> torch.Tensor | None:
    """Return which channels never were above zero before a ReLU; None without data or data flow."""
    if norm.feeds_relu is None or norm.population is None:
        return None
    return (norm.population.largest_output <= 0) & torch.tensor(norm.feeds_relu)


@fault("dead-gamma")
def dead_gamma(observation: Observation) -> Iterator[Finding | Unchecked]:
    """Channels whose gamma and beta leave nothing for the ReLU to pass, whatever the image.

    Effect: 1 and the share of the layer's channels that is lost, up to 2.
    """
    found = []
    for norm in observation.norms:
        dead_C = dead_by_gain(norm)
        if dead_C is None:
            if norm.feeds_relu is None and norm.gamma is not None:
                yield Unchecked(f"dead-gamma at {norm.address}", "what reads its output isn't known")
        elif bool(dead_C.any()):
            found.append((int(dead_C.sum()), norm, dead_C))
    for count, norm, dead_C in sorted(found, key=lambda entry: -entry[0] / entry[1].channels):
        yield _dead_gamma(count, norm, dead_C)


@fault("dead-channel")
def dead_channel(observation: Observation) -> Iterator[Finding]:
    """Channels that were never above zero on at least a hundred images, though their gains would allow it.

    Effect: 1 and the share of the layer's channels that is lost, up to 2.
    """
    for norm in observation.norms:
        dead_C, by_gain_C = dead_on_data(norm), dead_by_gain(norm)
        if dead_C is None or norm.population is None or norm.population.num_images < _FEWEST_IMAGES:
            continue
        if by_gain_C is not None:
            dead_C = dead_C & ~by_gain_C
        count, images = int(dead_C.sum()), norm.population.num_images
        if count:
            yield Finding(
                "dead-channel",
                "advice",
                norm.address,
                (
                    Evidence("dead channels", count, "channels", f"never above zero on {images} images"),
                    Evidence(
                        "upper bound on active images", 3 / images, "1", "95 % confidence, rule of three"
                    ),
                ),
                f"{count} of {norm.channels} channels pass the ReLU on none of {images} images (on fewer "
                f"than {3 / images:.1%} with 95 % confidence)",
                _REVIVE_FUNCTION if are_functions([norm]) else _REVIVE,
                _SLIMMING,
                effect=1 + count / norm.channels,
            )


def _dead_gamma(count: int, norm: NormCall, dead_C: torch.Tensor) -> Finding:
    assert norm.gamma is not None
    assert norm.beta is not None
    first = int(dead_C.nonzero()[0])
    largest, usual = float(norm.gamma[dead_C].abs().max()), _usual_gain(norm.gamma.abs())
    whole = count == norm.channels
    which = (
        f"all {count} channels"
        if whole
        else f"{count} of {norm.channels} channels, the first of them {first},"
    )
    others = "in the whole layer" if whole else f"where the layer's usual gain is {usual:.2g}"
    return Finding(
        "dead-gamma",
        "warning",
        norm.address,
        (
            Evidence(
                "dead channels",
                count,
                "channels",
                "|γ| < 10⁻⁴, or 10⁻³ of the usual gain, and β + 4 |γ| ≤ 0 before a ReLU",
            ),
            Evidence("largest |γ| among them", largest, "1"),
            Evidence("usual gain of the layer", usual, "1", "median of |γ| ≥ 10⁻³ of the largest"),
            Evidence("largest β among them", float(norm.beta[dead_C].max()), "1"),
            Evidence("first dead channel", first, "channel"),
        ),
        f"{which} are zero after the ReLU for every image: |γ| is at most {largest:.2g} {others}, and β "
        "isn't positive",
        "prune them, which changes nothing; or set their γ to 1 and β to 0, then "
        "cs.norm.recalibrate(model, loader), and train on with weight_decay=0 for gamma and beta",
        _SLIMMING,
        effect=1 + count / norm.channels,
    )

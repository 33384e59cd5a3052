"""What a feature evolution says: every chosen unit epoch by epoch, and when each layer converged."""

from dataclasses import dataclass

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.sight.evolving.moment import Appearance
from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class EvolvingUnit:
    """One unit over the epochs.

    Attributes:
        index: the channel.
        appearances: one an epoch.
        alike: cosine of its projection to that of the last epoch, epoch by epoch; None where it is dead at
            one of the two, or can't be projected.
        jumps: epochs at which its strongest image was another one than at the measured epoch before.
    """

    index: int
    appearances: tuple[Appearance, ...]
    alike: tuple[float | None, ...]
    jumps: tuple[int, ...]


@dataclass(frozen=True)
class EvolvingLayer:
    """One layer over the epochs.

    Attributes:
        name, address, unit_address: see :class:`~convscope.sight.picturing.album.Layer`.
        receptive_field: along the signal's way; None where it has no fixed one.
        num_units: of the layer.
        num_dead: dead units among all of them, epoch by epoch.
        alike: median of the chosen units' :attr:`EvolvingUnit.alike`, epoch by epoch.
        converged: first measured epoch from which on ``alike`` stays at the threshold or above; None if
            that is so at the last epoch alone.
        response: median over all units of the correlation, over fixed images, of their largest activation
            with that of the last epoch.
        response_converged: likewise for ``response``.
        units: the chosen ones.
        not_projected: why there are no projections; else empty.
        strip: name of the picture, epochs across, units down; empty if no unit was chosen.
    """

    name: str
    address: str
    unit_address: str
    receptive_field: ReceptiveField | None
    num_units: int
    num_dead: tuple[int, ...]
    alike: tuple[float | None, ...]
    converged: int | None
    response: tuple[float | None, ...]
    response_converged: int | None
    units: tuple[EvolvingUnit, ...]
    not_projected: str
    strip: str


@dataclass(frozen=True)
class FeatureEvolution(Result):
    """How a network's features came to be.

    Attributes:
        epochs: measured, ascending.
        missing: chosen epochs before the last measured one of which there is nothing.
        num_images: looked at, at the last epoch.
        num_damaged: images skipped, at the last epoch.
        threshold: of convergence.
        rule, rule_reason: of the projections, and why.
        layers: in order of execution.
        left_out: convolutions without units over the image, with the reasons.
        folder: where the strips and the epochs' files are.
        findings: what should be known before it is believed.
    """

    epochs: tuple[int, ...]
    missing: tuple[int, ...]
    num_images: int
    num_damaged: int
    threshold: float
    rule: str
    rule_reason: str
    layers: tuple[EvolvingLayer, ...]
    left_out: tuple[str, ...]
    folder: str
    findings: tuple[Finding, ...]

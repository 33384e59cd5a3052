"""Repairs of settings: momentum, ε, precision of the statistics, counters."""

from collections.abc import Iterator

from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import (
    Workshop,
    addresses_of,
    counted_layers,
    fault_ids,
    largest_change,
    path_of,
)
from convscope.core.finding import Finding
from convscope.core.units import counted

_USUAL_MOMENTUM = 0.1
_AMBIGUOUS = 0.5
_DIGITS = 12  # 1 − 0.99 is 0.010000000000000009 in floating point
_BOTH_ALIKE = (
    "momentum 0.5 weighs old and new alike, in either convention, so that it doesn't say what was meant: "
    "set momentum=0.1, or what the training needs"
)


@repairs("momentum-convention")
def momentum(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Take momentum for the weight of the old value, and set that of the new one: 1 − momentum.

    0.5 is left: it is the same in both conventions, so that nothing says which value was meant.
    """
    before = workshop.outputs()
    changed: list[Finding] = []
    values: dict[str, None] = {}
    for finding in findings:
        norm = workshop.layer(finding.address)
        assert isinstance(norm, _BatchNorm)
        old = norm.momentum or 0.0
        if path_of(finding.address) not in {path_of(each.address) for each in changed}:
            if old == _AMBIGUOUS:
                yield Left(finding.fault, finding.address, _BOTH_ALIKE)
                continue
            norm.momentum = round(1 - old, _DIGITS) if 0 < old < 1 else _USUAL_MOMENTUM
            values[f"{old:g} → {norm.momentum:g}"] = None
        changed.append(finding)
    if changed:
        yield Mended(
            fault_ids(changed),
            addresses_of(changed),
            f"momentum, the weight of the new batch, set ({', '.join(values)}) in {counted_layers(changed)}",
            largest_change(before, workshop.outputs()),
        )


@repairs("half-statistics")
def half_statistics(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Keep the layer in float32; statistics that a function is given aren't a layer's to keep."""
    norms = [(finding, workshop.layer(finding.address)) for finding in findings]
    kept = tuple(finding for finding, norm in norms if isinstance(norm, _BatchNorm))
    for finding, norm in norms:
        if isinstance(norm, _BatchNorm):
            norm.float()
        else:
            yield Left(finding.fault, finding.address, "no batch norm module holds these statistics")
    if kept:
        yield Mended(fault_ids(kept), addresses_of(kept), f"{counted_layers(kept)} kept in float32")


@repairs("teacher-statistics")
def counters(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Make counters that somebody has averaged whole numbers again."""
    averaged = [
        module
        for module in workshop.model.modules()
        if isinstance(module, _BatchNorm)
        and module.num_batches_tracked is not None
        and module.num_batches_tracked.is_floating_point()
    ]
    for norm in averaged:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked = norm.num_batches_tracked.round().long()
    if averaged:
        yield Mended(
            fault_ids(findings),
            addresses_of(findings),
            f"{counted(len(averaged), 'counter')} made whole again",
        )


@repairs("dominant-epsilon")
def epsilon(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Set every layer's ε to that of the reference."""
    reference = workshop.observation.reference
    origins = {} if reference is None else reference.norms
    changed = []
    for path, origin in origins.items():
        norm = dict(workshop.model.named_modules()).get(path)
        if isinstance(norm, _BatchNorm) and origin.eps is not None and norm.eps != origin.eps:
            norm.eps = origin.eps
            changed.append(path)
    if changed:
        yield Mended(
            fault_ids(findings),
            addresses_of(findings),
            f"ε as in the reference in {counted(len(changed), 'layer')}",
        )
        return
    for finding in findings:
        yield Left(finding.fault, finding.address, "weights are learnt with their ε: a training must say")

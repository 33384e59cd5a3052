"""Repairs of settings: momentum, ε, precision of the statistics, counters, layers meant to be frozen."""

from collections.abc import Callable, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import Workshop, largest_change, path_of
from convscope.core.finding import Finding
from convscope.norm import freeze

_USUAL_MOMENTUM = 0.1


@repairs("momentum-convention")
def momentum(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Take momentum for the weight of the old value, and set that of the new one: 1 − momentum."""

    def change(norm: _BatchNorm) -> None:
        old = norm.momentum or 0.0
        norm.momentum = 1 - old if old < 1 else _USUAL_MOMENTUM

    yield from _layers(workshop, findings, change, "momentum is now the weight of the new batch")


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
        yield Mended(_ids(kept), _addresses(kept), f"{_counted(kept)} kept in float32")


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
            _ids(findings), _addresses(findings), f"{len(averaged)} counters are whole numbers again"
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
        yield Mended(_ids(findings), _addresses(findings), f"ε as in the reference in {len(changed)} layers")
        return
    for finding in findings:
        yield Left(finding.fault, finding.address, "weights are learnt with their ε: a training must say")


@repairs("frozen-but-tracking")
def frozen(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Freeze layers whose gamma and beta are frozen, so that they use and keep their running statistics."""
    before = workshop.outputs()
    freeze(workshop.model, only=[path_of(finding.address) for finding in findings], affine=False)
    changed = largest_change(before, workshop.outputs())
    yield Mended(
        _ids(findings),
        _addresses(findings),
        f"cs.norm.freeze of {_counted(findings)}",
        largest_change=changed,
    )


def _layers(
    workshop: Workshop, findings: tuple[Finding, ...], change: Callable[[_BatchNorm], None], done: str
) -> Iterator[Mended]:
    """Change a setting of each finding's layer that has no part in what evaluation computes."""
    before = workshop.outputs()
    for path in dict.fromkeys(path_of(finding.address) for finding in findings):
        norm: nn.Module = workshop.layer(path)
        assert isinstance(norm, _BatchNorm)
        change(norm)
    changed = largest_change(before, workshop.outputs())
    yield Mended(_ids(findings), _addresses(findings), f"{done} in {_counted(findings)}", changed)


def _ids(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.fault for finding in findings))


def _addresses(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.address for finding in findings))


def _counted(findings: tuple[Finding, ...]) -> str:
    count = len({path_of(finding.address) for finding in findings})
    return f"{count} layer" + ("s" if count > 1 else "")

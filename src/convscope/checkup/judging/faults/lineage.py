"""Faults of descent: a layer that isn't what it was in the network that the model was made from."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.start import has_moved
from convscope.checkup.observed import Observation, ReferenceFacts, ReferenceNorm
from convscope.checkup.unchecked import Unchecked
from convscope.core.address import Address
from convscope.core.finding import Evidence, Finding

_UNFITTED = 0.5  # standard deviations of the outputs, above which a regrouped network is another one


@fault("lost-behaviour")
def lost_behaviour(observation: Observation) -> Iterator[Finding | Unchecked]:
    """A layer computes another function than the one it was made from, given the same tensors.

    Not if the outputs on the data are the same all the same. A layer that couldn't be run beside its origin
    is suspected if its class has lost submodules, tensors, or code.

    Effect: the layer's difference over what rounding explains.
    """
    facts = observation.reference
    if facts is None:
        return
    yield from facts.unchecked
    shown = facts.output_difference if facts.same_parameters else None
    if shown is not None and shown <= facts.rounding:
        return
    changed = [norm for norm in facts.norms.values() if _is_changed(norm, facts, shown)]
    suspects = [
        norm for norm in facts.norms.values() if norm.lost and norm.path not in facts.layer_differences
    ]
    if changed:
        yield _lost_finding(observation, facts, changed, shown)
    elif suspects:
        yield _suspect_finding(observation, suspects, shown)


@fault("unfitted-group-norm")
def unfitted_group_norm(observation: Observation) -> Iterator[Finding]:
    """Batch norms became group norms with the same γ and β, which are wrong for other statistics.

    Effect: the outputs' difference over half of their standard deviation.
    """
    facts = observation.reference
    if facts is None:
        return
    norms = [norm for norm in facts.norms.values() if norm.regrouped and norm.same_affine and has_moved(norm)]
    shown = facts.output_difference
    if not norms or (shown is not None and shown <= _UNFITTED):
        return
    size = [] if shown is None else [_difference_evidence(shown)]
    yield Finding(
        "unfitted-group-norm",
        "advice" if shown is None else "warning",
        str(Address(norms[0].path)),
        (
            *size,
            Evidence("layers", len(norms), "layers", "group norms with a batch norm's γ and β, bit for bit"),
        ),
        f"{len(norms)} group norms have the γ and β of the batch norms before them, which were learnt for "
        "other statistics"
        + ("" if shown is None else f": outputs are off by up to {shown:.2g} of their spread"),
        'cs.norm.convert(network, "group", data=loader), which fits γ and β; or train on',
        "Wu and He, Group Normalization, arXiv 1803.08494, section 3: statistics per sample and group",
        effect=1.0 if shown is None else shown / _UNFITTED,
    )


@fault("one-value-per-group")
def one_value_per_group(observation: Observation) -> Iterator[Finding]:
    """A group's statistics are of one value, which leaves nothing of it, or of fewer than 16.

    Effect: 16 over the values per group.
    """
    fewest = 16
    for call in observation.groups:
        if call.values_per_group >= fewest:
            continue
        alone = call.values_per_group == 1
        groups = max(1, call.num_groups * call.values_per_group // fewest)
        yield Finding(
            "one-value-per-group",
            "error" if alone else "advice",
            call.address,
            (
                Evidence(
                    "values per group", call.values_per_group, "values", "channels / groups × positions"
                ),
                Evidence("groups", call.num_groups, "groups"),
            ),
            "each group of a sample has 1 value here, x − mean is 0, and the output is β whatever the input"
            if alone
            else f"each group of a sample has {call.values_per_group} values here: their mean takes away "
            f"{1 / call.values_per_group:.0%} of what they hold",
            f"fewer groups, so that each has at least 16 values: num_groups={groups}",
            "x̂ = (x − mean) / √(variance + ε); Wu and He, arXiv 1803.08494, table 3",
            effect=fewest / call.values_per_group,
        )


def _is_changed(norm: ReferenceNorm, facts: ReferenceFacts, shown: float | None) -> bool:
    """A norm that was taken out may have been folded into its neighbour; then weights differ."""
    differs = facts.layer_differences.get(norm.path, 0.0) > facts.rounding
    return differs and not (norm.removed and shown is None)


def _lost_finding(
    observation: Observation, facts: ReferenceFacts, changed: list[ReferenceNorm], shown: float | None
) -> Finding:
    norm = changed[0]
    largest = facts.layer_differences[norm.path]
    outputs = [] if shown is None else [_difference_evidence(shown)]
    lost = f", which has lost {', '.join(norm.lost)}" if norm.lost else ""
    return Finding(
        "lost-behaviour",
        "error",
        _address(observation, norm.path),
        (
            *outputs,
            Evidence(
                "difference of the layer's outputs", largest, "σ",
                "max |difference| / standard deviation in evaluation mode, same tensors, ε and inputs",
            ),
            Evidence("layers", len(changed), "layers", "that compute something else than their origin"),
        ),
        f"{norm.path} was {norm.kind} and is {norm.own_kind}{lost}: given the same tensors and inputs, its "
        f"outputs are off by up to {largest:.2g} standard deviations",
        'convert the original with cs.norm.convert(network, "sync"), which keeps what a layer does around '
        "its batch norm",
        "convert_sync_batchnorm of PyTorch makes new layers; pytorch issue 187298, timm issue 1254",
        effect=largest / facts.rounding,
    )  # fmt: skip


def _suspect_finding(observation: Observation, suspects: list[ReferenceNorm], shown: float | None) -> Finding:
    norm = suspects[0]
    outputs = [] if shown is None else [_difference_evidence(shown)]
    return Finding(
        "lost-behaviour",
        "warning",
        _address(observation, norm.path),
        (*outputs, Evidence("layers", len(suspects), "layers", "whose class has lost something")),
        f"{norm.path} was {norm.kind} and is {norm.own_kind}: it has lost {', '.join(norm.lost)}, and may "
        "compute something else",
        "convert the original with cs.norm.convert(network, ...), which keeps what a layer does around its "
        "batch norm",
        "converters that build new layers keep only what they know; pytorch issue 187298, timm issue 1254",
    )


def _difference_evidence(shown: float) -> Evidence:
    return Evidence(
        "difference of the outputs", shown, "σ",
        "max |difference| / standard deviation in evaluation mode, beside the reference, same inputs",
    )  # fmt: skip


def _address(observation: Observation, path: str) -> str:
    found = (norm.address for norm in observation.norms if norm.path == path)
    return next(found, str(Address(path)))

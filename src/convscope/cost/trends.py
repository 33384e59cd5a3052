"""Where a network's activations, parameters and work sit: the notes' trends, computed for any network.

Each finding is a fact with its numbers; nothing is judged. A trend that a network can't have (no fully
connected layer, no pool) isn't there, and inference says nothing about what backward would need.
"""

from collections.abc import Callable
from itertools import accumulate

from convscope.core.finding import Evidence, Finding
from convscope.core.units import FLOPS_PER_MAC, format_bytes, format_count, format_percent
from convscope.cost.most import most_expensive
from convscope.cost.row import Row, RuleOfThumb, Totals
from convscope.cost.rule_of_thumb import is_pool
from convscope.cost.shares import CONVOLUTIONS, counted_outputs, linear_rows, share, stem_of, sum_of

_SOURCE = "course notes, 'Successful Architectures', AlexNet: trends to note"
_TABLE = "the table's rows"


def trends(rows: tuple[Row, ...], totals: Totals, estimate: RuleOfThumb) -> tuple[Finding, ...]:
    """Return the trends of a network as findings of severity ``"info"``.

    Args:
        rows: the table.
        totals: its sums.
        estimate: the notes' estimate of memory.
    """
    layers = tuple(row for row in rows if row.phase == "forward")
    found = [trend(layers, totals) for trend in _TRENDS]
    facts = (*found, _largest_activations(rows), _similar_memory(estimate))
    return (*(finding for finding in facts if finding is not None), *most_expensive(rows, totals))


def _stem(rows: tuple[Row, ...], totals: Totals) -> Finding | None:
    stem = stem_of(rows)
    if stem is None or not totals.macs:
        return None
    outputs = counted_outputs(rows)
    of_activations, of_macs = stem.activations / outputs, stem.macs / totals.macs
    return _fact(
        "stem-share",
        stem.address,
        f"the first convolution makes {format_percent(of_activations)} of the activations of convolution, "
        f"linear and pooling layers, with {format_percent(of_macs)} of the MACs and "
        f"{format_percent(share(stem.params, totals.params))} of the parameters",
        Evidence("activations", stem.activations, "elements", _TABLE),
        Evidence("share of activations", of_activations, "1", "of convolution, linear and pooling outputs"),
        Evidence("forward FLOPs", stem.forward_flops, "FLOPs", "2 per MAC, whole batch"),
        Evidence("share of MACs", of_macs, "1", _TABLE),
        Evidence("share of parameters", share(stem.params, totals.params), "1", _TABLE),
    )


def _fully_connected(rows: tuple[Row, ...], totals: Totals) -> Finding | None:
    linear = linear_rows(rows)
    if not linear or not totals.params or not totals.macs:
        return None
    params, macs = sum_of(linear, "params"), sum_of(linear, "macs")
    largest = max(linear, key=lambda row: row.params)
    return _fact(
        "fully-connected-share",
        largest.address,
        f"fully connected layers hold {format_percent(params / totals.params)} of the parameters and do "
        f"{format_percent(macs / totals.macs)} of the MACs; {_called(largest)} alone holds "
        f"{format_count(largest.params)}",
        Evidence("parameters", params, "elements", _TABLE),
        Evidence("share of parameters", params / totals.params, "1", _TABLE),
        Evidence("share of MACs", macs / totals.macs, "1", _TABLE),
        Evidence("largest layer's parameters", largest.params, "elements", _TABLE),
    )


def _convolutions(rows: tuple[Row, ...], totals: Totals) -> Finding | None:
    convolutions = [row for row in rows if row.op in CONVOLUTIONS]
    if not convolutions or not totals.macs:
        return None
    macs = sum_of(convolutions, "macs")
    largest = max(convolutions, key=lambda row: row.macs)
    return _fact(
        "convolution-share",
        largest.address,
        f"convolutions do {format_percent(macs / totals.macs)} of the MACs with "
        f"{format_percent(share(sum_of(convolutions, 'params'), totals.params))} of the parameters; "
        f"{_called(largest)} does most",
        Evidence("MACs", macs, "MACs", "whole batch"),
        Evidence("share of MACs", macs / totals.macs, "1", _TABLE),
        Evidence("share of parameters", share(sum_of(convolutions, "params"), totals.params), "1", _TABLE),
    )


def _largest_activations(rows: tuple[Row, ...]) -> Finding | None:
    kept = sum_of(rows, "saved_bytes")
    if not kept:
        return None
    largest = max(rows, key=lambda row: row.saved_bytes)
    running = accumulate(row.saved_bytes for row in rows)
    depth = next(number for number, sofar in enumerate(running, start=1) if 2 * sofar >= kept)
    return _fact(
        "largest-activations",
        largest.address,
        f"half of the {format_bytes(kept)} that rows keep for the backward pass belongs to "
        f"{_first(depth, len(rows))}; {largest.address} keeps most, {format_bytes(largest.saved_bytes)}",
        Evidence("kept for backward", kept, "B", "storages alive when backward begins"),
        Evidence("largest row", largest.saved_bytes, "B", _TABLE),
        Evidence("rows that keep half", depth, "rows", _TABLE),
    )


def _pools(rows: tuple[Row, ...], totals: Totals) -> Finding | None:
    pools = [row for row in rows if is_pool(row)]
    if not pools or not totals.macs:
        return None
    part = sum_of(pools, "elementwise_ops") / (totals.forward_flops + totals.elementwise_ops)
    evidence = [
        Evidence("operations", sum_of(pools, "elementwise_ops"), "operations", "comparisons and additions"),
        Evidence("share of operations", part, "1", f"of elementwise operations and {FLOPS_PER_MAC} per MAC"),
    ]
    indices = sum_of(pools, "index_bytes")
    why = f"pooling does {format_percent(part)} of the forward operations"
    if indices and totals.saved_bytes:
        why += (
            f", but its 8-byte indices are {format_percent(indices / totals.saved_bytes)} of the bytes kept "
            f"for the backward pass ({format_bytes(indices)})"
        )
        evidence += [
            Evidence("indices", indices, "B", "int64 switches of max-pools"),
            Evidence("share of kept bytes", share(indices, totals.saved_bytes), "1", _TABLE),
        ]
    return _fact(
        "pooling-share",
        max(pools, key=lambda row: row.index_bytes).address,
        why,
        *evidence,
    )


def _similar_memory(estimate: RuleOfThumb) -> Finding | None:
    parameters, activations = estimate.parameter_bytes, estimate.activation_bytes
    if not parameters or not activations:
        return None
    ratio = activations / parameters
    relation = "similar to" if 0.5 <= ratio <= 2 else "more than" if ratio > 1 else "less than"
    return _fact(
        "activations-against-parameters",
        "self#1",
        f"by the rule of thumb activations take {format_bytes(activations)}, {relation} the parameters' "
        f"{format_bytes(parameters)} (ratio {ratio:.2f})",
        Evidence("activations", activations, "B", f"outputs × {estimate.values_per_activation}"),
        Evidence("parameters", parameters, "B", f"parameters × {estimate.values_per_parameter}"),
        Evidence("ratio", ratio, "1", "activations / parameters"),
    )


_TRENDS: tuple[Callable[[tuple[Row, ...], Totals], Finding | None], ...] = (
    _stem,
    _fully_connected,
    _convolutions,
    _pools,
)


def _first(count: int, of: int) -> str:
    """The first rows of some, in words."""
    if of == 1:
        return "the only row"
    return f"the first of {of} rows" if count == 1 else f"the first {count} of {of} rows"


def _called(row: Row) -> str:
    """What a layer is called in a sentence: its path, or with its kind if that is but a number."""
    is_number = row.path.replace(".", "").isdigit()
    return f"layer {row.path} ({row.type_name})" if is_number else row.path


def _fact(fault: str, address: str, why: str, *evidence: Evidence) -> Finding:
    return Finding(fault, "info", address, evidence, why, source=_SOURCE)

"""What every module costs: the table's rows summed up to a depth in the tree of modules.

Depth 0 is the whole network, depth 1 its children, and so on. A row that lies deeper belongs to its ancestor
at that depth. Operators that run directly in a module above that depth have one row per kind,
``layer1.0:add``; the loss is the row ``(loss)``, and parameters that nothing reads are the last row,
``(unused)``. Every call is in exactly one row, so the rows of every depth add up to the same totals. Reused
modules are one row with the sum of their calls and how many there were.

Limits: output shape and receptive field of a module are those of the last row in it, in order of execution.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convscope.core.address import ROOT, parse_address
from convscope.core.errors import ConvscopeError
from convscope.cost.row import ModuleCalls, Row
from convscope.cost.views.columns import COLUMNS, sums
from convscope.tape import Tape

LOSS, UNUSED = "(loss)", "(unused)"
"""Addresses of the loss and of the parameters that nothing reads; no module's path has parentheses."""

_DERIVED = ("backward_flops", "step_flops")


def modules_of(tape: Tape) -> tuple[ModuleCalls, ...]:
    """Return the modules that ran in the forward pass, with the number of their calls."""
    ran = [module for module in tape.modules if not module.recompute]
    counts = Counter(module.address.path for module in ran)
    types = {module.address.path: module.type_name for module in reversed(ran)}
    return tuple(ModuleCalls(path, types[path], calls) for path, calls in counts.items())


def rolled_up(
    rows: Sequence[Row], modules: Iterable[ModuleCalls], depth: int | None = None
) -> tuple[Row, ...]:
    """Return one row per module at ``depth`` or above it, in order of execution.

    Args:
        rows: one per call.
        modules: the modules that ran, for their class names and calls.
        depth: 0 is the network, 1 its children, …; None: as deep as it goes.

    Raises:
        ConvscopeError: the depth is negative.
    """
    if depth is not None and depth < 0:
        raise ConvscopeError(f"depth {depth}", "0 for the whole network, 1 for its children, …", "change it")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row, depth), []).append(row)
    known = {module.path: module for module in modules}
    return tuple(_summed(name, members, known) for name, members in groups.items())


def unused_row(params: int, parameter_bytes: int) -> Row:
    """Return the row of the parameters that no operator reads, for totals that have them too."""
    numbers: dict[str, Any] = dict.fromkeys((name for name in COLUMNS if name not in _DERIVED), 0)
    numbers |= {"params": params, "parameter_bytes": parameter_bytes}
    return Row(
        address=UNUSED, path="", type_name="", op="parameters", phase="unused", output_shape=(),
        receptive_field=None, **numbers,
    )  # fmt: skip


def _group(row: Row, depth: int | None) -> str:
    """The address of the rolled-up row that a row belongs to."""
    if row.phase == "loss":
        return LOSS
    names = [] if row.path == ROOT else row.path.split(".")
    if depth is not None and len(names) >= depth:
        return ".".join(names[:depth]) or ROOT
    is_operator = parse_address(row.address).op is not None
    return f"{row.path}:{row.op}" if is_operator else row.path


def _summed(address: str, rows: Sequence[Row], modules: Mapping[str, ModuleCalls]) -> Row:
    total: dict[str, Any] = {name: number for name, number in sums(rows).items() if name not in _DERIVED}
    last = rows[-1]
    if address == LOSS:
        last = replace(last, receptive_field=None, sees_whole_image=False)
        return replace(last, address=LOSS, op="loss", calls=1, **total)
    path, operator = address, ""
    if address not in modules and ":" in address:
        path, _, operator = address.rpartition(":")
    module = modules.get(path)
    ops = {row.op for row in rows}
    return replace(
        last,
        address=address,
        path=path,
        type_name=module.type_name if module else last.type_name,
        op=operator or (ops.pop() if len(ops) == 1 and last.path == path else ""),
        calls=len(rows) if operator else module.calls if module else 1,
        **total,
    )

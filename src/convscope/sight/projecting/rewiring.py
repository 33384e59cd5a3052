"""Changes to autograd's graph before a signal goes back through it: edges cut, signals rectified.

A gate that is made of the image is an input of its product like any other; autograd would compute a signal
for it and send it on. Hooks on the product's node of the graph take that signal away, so that nothing runs in
the gate's own branch. They belong to the graph, not to the model, and go with it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.gates import hardtanh
from convscope.tape import Attribution

Signals = tuple[Tensor | None, ...]
_DONE = "convscope"
_OF_A_LIBRARY = "generatedbackwardfor_"


@dataclass(frozen=True)
class Change:
    """What is changed at one operator's node.

    Attributes:
        op: the operator's name.
        cut: the tensor inputs which get no signal.
        kind: ``"cut"``: nothing else; ``"rectify"``: the signal from above is rectified first (an activation
            written out); ``"pass"``: the first input gets it as it is (local response normalisation);
            ``"clamp"``: it is rectified and gated by the bounds; ``"square"``: by the input itself;
            ``"positive"``: it is rectified, and gated by the sign of the input ``data`` if ``masked``;
            ``"gate"``: it is rectified and gated by what was computed for the run, for the input ``data``.
        bounds: of a clamp.
        data: which input of a maximum with zeros, or of an activation with a gate.
        masked: see above.
        gate: see above.
    """

    op: str
    cut: frozenset[int] = frozenset()
    kind: Literal["cut", "rectify", "pass", "clamp", "positive", "square", "gate"] = "cut"
    bounds: tuple[float, float] = (0.0, 0.0)
    data: int = 0
    masked: bool = False
    gate: Tensor | None = None


def rewire(maps: Tensor, changes: Mapping[str, Change], attribution: Attribution) -> set[str]:
    """Change the graph above an image and below ``maps``; once, however often it is called.

    Args:
        maps: where the signal starts.
        changes: by the address of the forward operator.
        attribution: of the run which made the graph.

    Returns:
        The addresses at which something was changed.

    Raises:
        ConvscopeError: an activation is written into a part of a tensor.
    """
    found = set[str]()
    for node, address in _nodes(maps, changes, attribution):
        if _DONE not in node.metadata:
            node.metadata[_DONE] = True
            _change(node, changes[address], address)
        found.add(address)
    return found


def _nodes(
    maps: Tensor, changes: Mapping[str, Change], attribution: Attribution
) -> Iterator[tuple[Any, str]]:
    """The nodes at which something is to be changed; what is cut off isn't visited."""
    pending, seen = [maps.grad_fn], {maps.grad_fn}
    while pending:
        node: Any = pending.pop()
        creator = attribution.creator_of(node._sequence_nr())
        address = "" if creator is None else str(attribution.site(creator).address)
        change = changes.get(address)
        cut: frozenset[int] = frozenset()
        if change is not None and _is_node_of(node.name(), change.op):
            cut = change.cut
            yield node, address
        for place, (below, _) in enumerate(node.next_functions):
            if below is not None and place not in cut and below not in seen:
                seen.add(below)
                pending.append(below)


def _is_node_of(name: str, op: str) -> bool:
    if _is_copy(name):  # the operator wrote into a view
        return op.endswith("_")
    made_by = name.rpartition("::")[2].rstrip("0123456789").removesuffix("Backward").lower()
    if made_by.startswith(_OF_A_LIBRARY):  # by torch.library.register_autograd, with the overload at the end
        return made_by.removeprefix(_OF_A_LIBRARY).startswith(f"{op.lower()}_")
    return op in ("attention", "convscope_normalise") or made_by == op.replace("_", "").lower()


def _is_copy(name: str) -> bool:
    return name.endswith("CopySlices")


def _change(node: Any, change: Change, address: str) -> None:
    if change.kind != "cut" and _is_copy(node.name()):
        raise ConvscopeError(
            f"{change.op} at {address}, an activation that is written into a part of a tensor",
            "activations with a result of their own",
            "write it without slices, or use rule='gradient'",
        )
    if change.kind == "rectify":
        node.register_prehook(lambda signals: tuple(map(_rectified, signals)))
    replaced = _REPLACED.get(change.kind)
    if replaced is not None:
        node.register_hook(lambda below, above: replaced(node, change, below, above))
    elif change.cut:
        node.register_hook(lambda below, _: _without(below, change.cut))


def _rectified(signal: Tensor | None) -> Tensor | None:
    return None if signal is None else signal.clamp(min=0)


def _without(signals: Signals, cut: frozenset[int]) -> Signals:
    return tuple(None if place in cut else signal for place, signal in enumerate(signals))


def _passed(_node: Any, _change: Change, below: Signals, above: Signals) -> Signals:
    return (above[0], *(None,) * (len(below) - 1))


def _clamped(node: Any, change: Change, below: Signals, above: Signals) -> Signals:
    signal = _rectified(above[0])
    gate = hardtanh(node._saved_self, *change.bounds)
    return (None if signal is None else signal * gate, *(None,) * (len(below) - 1))


def _squared(node: Any, _change: Change, _below: Signals, above: Signals) -> Signals:
    signal = _rectified(above[0])
    return (None if signal is None else signal * node._saved_self,)


def _positive(node: Any, change: Change, below: Signals, above: Signals) -> Signals:
    signal = _rectified(above[0])
    if signal is not None and change.masked:
        signal = signal * ((node._saved_self, node._saved_other)[change.data] > 0)
    return tuple(signal if place == change.data else None for place in range(len(below)))


def _gated(_node: Any, change: Change, below: Signals, above: Signals) -> Signals:
    signal = _rectified(above[0])
    if signal is not None and change.gate is not None:
        signal = signal * change.gate.to(signal.dtype)
    return tuple(signal if place == change.data else None for place in range(len(below)))


_REPLACED: dict[str, Callable[[Any, Change, Signals, Signals], Signals]] = {
    "pass": _passed,
    "clamp": _clamped,
    "square": _squared,
    "positive": _positive,
    "gate": _gated,
}

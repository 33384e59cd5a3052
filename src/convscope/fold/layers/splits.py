"""Layers that are called several times, each time before another batch norm: one copy of the layer for each.

Heads of detection networks share convolutions between levels and have batch norms for each level. One
weight serves all calls, so that it can take in one batch norm only. Here the layer moves: an identity
takes its place, and a copy stands before each batch norm, which then folds into its own copy. The costs
of a run stay the same; the copies take memory, and train apart.

Limits: only where each call's result is read by one call of one batch norm module, and by nobody else,
and where the network, recorded anew, runs the same operators on the same shapes (code may look at the
result's shape). Where only some calls are normalised, the layer stays: its module can't know which of its
calls is which.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from convscope.core.errors import ConvscopeError
from convscope.fold.edits import Swap, carry_out
from convscope.fold.planning.plan import Decision, Plan
from convscope.fold.proof.settle import copied
from convscope.fold.recorded.flow import Flow, has_hooks, path_of
from convscope.tape import ModuleCall, OperatorCall, Tape, device_of, record

_LAYER, _NORM = "layer", "norm"

Planner = Callable[[Mapping[str, str]], Plan]
"""Makes a plan in which some batch norms are kept: their addresses, and why."""


class MovedLayer(nn.Identity):
    """The identity, in the place of a layer of which a copy stands before each batch norm that followed it.

    Attributes:
        was: the layer's printed form.
        into: the paths of the copies.

    Example:
        >>> MovedLayer("Conv2d(3, 8, …)", ("bn1.layer", "bn2.layer"))
        MovedLayer(was Conv2d(3, 8, …), now bn1.layer, bn2.layer)
    """

    def __init__(self, was: str, into: tuple[str, ...]) -> None:
        super().__init__()
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now {', '.join(self.into)}"


class LayerBeforeNorm(nn.Module):
    """A copy of a layer that several batch norms shared, and one of those batch norms."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, input: Any) -> Any:
        """Return the layer's result, normalised."""
        return self.norm(self.layer(input))


@dataclass(frozen=True)
class Split:
    """A layer that moves before the batch norms which follow it; an edit.

    Attributes:
        layer: its path.
        norms: the paths of the batch norms.
    """

    layer: str
    norms: tuple[str, ...]

    def __call__(self, model: nn.Module) -> None:
        """Carry it out on a network, in place."""
        layer = model.get_submodule(self.layer)
        for path in self.norms:
            Swap(path, lambda norm: LayerBeforeNorm(copy.deepcopy(layer), norm))(model)
        was = f"{type(layer).__name__}({layer.extra_repr()})"
        Swap(self.layer, lambda _: MovedLayer(was, tuple(f"{path}.{_LAYER}" for path in self.norms)))(model)

    def outer(self, address: str) -> str:
        """Return the address that a batch norm had before, given the one that it has now."""
        for path in self.norms:
            head = f"{path}.{_NORM}"
            if address == head or address.startswith((f"{head}#", f"{head}.")):
                address = path + address[len(head) :]
        return address


def splits_of(flow: Flow) -> tuple[Split, ...]:
    """Return the layers that can move before the batch norms which follow them, where there are several."""
    seen = {value for value, _ in flow.seen()}
    paths = dict.fromkeys(path_of(call) for call in flow.tape.modules if not call.recompute)
    found = (_split(flow, path, seen) for path in paths if len(flow.calls_of_module(path)) > 1)
    return tuple(split for split in found if split is not None)


def _split(flow: Flow, path: str, seen: set[int]) -> Split | None:
    layer = flow.model.get_submodule(path)
    if not isinstance(layer, _ConvNd | nn.Linear) or isinstance(layer, _ConvTransposeNd):
        return None  # a transposed one may be told the size of its output
    if has_hooks(layer):
        return None
    norms = [_norm_after(flow, call, seen) for call in flow.calls_of_module(path)]
    followed = [norm for norm in norms if norm is not None]
    paths = tuple(dict.fromkeys(path_of(norm) for norm in followed))
    if len(followed) < len(norms) or len(paths) < 2:
        return None
    calls = {call.index for path in paths for call in flow.calls_of_module(path)}
    return Split(path, paths) if calls == {norm.index for norm in followed} else None


def _norm_after(flow: Flow, layer: ModuleCall, seen: set[int]) -> ModuleCall | None:
    """The call of a batch norm module that alone reads what a layer's call returns, or None."""
    if len(layer.inputs) != 1 or len(layer.outputs) != 1 or flow.children_of(layer):
        return None
    value = layer.outputs[0]
    readers = flow.tape.consumers(value)
    inside = {reader.module for reader in readers}
    if value in seen or len(inside) != 1 or None in inside:
        return None
    norm = flow.tape.modules[next(index for index in inside if index is not None)]
    module = flow.module_of(norm)
    is_norm = "running_mean" in dict(module.named_buffers(recurse=False)) and norm.inputs == (value,)
    if not is_norm or has_hooks(module) or _is_written(flow, layer, readers[0]):
        return None
    return norm


def _is_written(flow: Flow, layer: ModuleCall, reader: OperatorCall) -> bool:
    """Whether what a layer reads or returns is written to before the batch norm reads it."""
    held = {flow.tape.values[value].storage for value in (*layer.inputs, *layer.outputs)}
    first = min((call.index for call in flow.operators_of(layer)), default=reader.index)
    between = flow.tape.calls[first : reader.index]
    written = (flow.tape.values[value] for call in between for value in call.outputs if value is not None)
    return any(value.storage in held and value.version > 0 for value in written)


class Parted:
    """Plans in which shared layers move before batch norms, where that lets all of these fold.

    Args:
        model: the network; it stays as it is.
        tape: its recording of inference.
        inputs: what to record it on.
        make: returns the planner for a network and its recording.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, inputs: Any, make: Callable[[nn.Module, Tape], Planner]
    ) -> None:
        self._model, self._tape, self._inputs, self._make = model, tape, inputs, make
        self._proposed = splits_of(Flow(tape, model))
        self._planners: dict[tuple[Split, ...], Planner | None] = {}

    def __call__(self, kept: Mapping[str, str]) -> Plan:
        """Return the plan in which some batch norms, by address, are kept for a reason."""
        paths = {address.partition("#")[0] for address in kept}
        splits = tuple(split for split in self._proposed if paths.isdisjoint(split.norms))
        while True:
            planner = self._planner(splits)
            if planner is None:
                splits = ()
                continue
            plan = _renamed(planner(kept), splits)
            stuck = {each.address.partition("#")[0] for each in plan.decisions if each.verdict not in _GONE}
            useful = tuple(split for split in splits if stuck.isdisjoint(split.norms))
            if useful == splits:
                return replace(plan, stages=((*splits,), *plan.stages)) if splits else plan
            splits = useful

    def _planner(self, splits: tuple[Split, ...]) -> Planner | None:
        """The planner of the network with some layers moved; None if it runs otherwise then."""
        if splits not in self._planners:
            self._planners[splits] = self._made(splits)
        return self._planners[splits]

    def _made(self, splits: tuple[Split, ...]) -> Planner | None:
        if not splits:
            return self._make(self._model, self._tape)
        network = copied(self._model)
        carry_out(network, splits)
        try:
            tape = record(network, self._inputs, device=device_of(network))
        except ConvscopeError:
            return None
        return self._make(network, tape) if _work(tape) == _work(self._tape) else None


_GONE = ("folded", "merged")


def _work(tape: Tape) -> Counter[tuple[Any, ...]]:
    """What a network does, in whatever order: operators, the numbers that they're given, and shapes."""
    return Counter(
        (call.op, tuple(tape.values[value].shape for value in call.outputs if value is not None))
        for call in tape.calls
    )


def _renamed(plan: Plan, splits: Iterable[Split]) -> Plan:
    """A plan in which batch norms have the addresses that they had before."""
    decisions = plan.decisions
    for split in splits:
        decisions = tuple(_as_before(decision, split) for decision in decisions)
    return replace(plan, decisions=decisions)


def _as_before(decision: Decision, split: Split) -> Decision:
    place = decision.place
    if place is not None:
        place = replace(place, address=split.outer(place.address))
    address = split.outer(decision.address)
    if address == decision.address:
        return replace(decision, place=place)
    remark = f"{split.layer}, which several batch norms share, became a layer for each of them"
    reason = "; ".join(text for text in (decision.reason, remark) if text)
    return replace(decision, address=address, place=place, reason=reason)

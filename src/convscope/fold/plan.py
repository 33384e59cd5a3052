"""Which batch norms of a recorded run can be folded, into which layers, and why the others can't."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.core.address import ROOT
from convscope.fold.affine import Affine, affine_of
from convscope.fold.flow import Flow, Stays, path_of
from convscope.fold.layer import Layer, layer_before, new_weights, require_finite
from convscope.fold.shell import Shell, shell_of
from convscope.tape import OperatorCall, Tape
from convscope.tape.batch_norms import normalises_samples


@dataclass(frozen=True)
class Fold:
    """One batch norm call that can go into the layer before it.

    Attributes:
        address: its name in the ledger.
        call: the recorded operator call.
        affine: what it computes.
        layer: where that goes.
        shell: the module that is replaced once all of its calls are folded.
        magnification: largest |γ| / √(v + ε).
    """

    address: str
    call: OperatorCall
    affine: Affine
    layer: Layer
    shell: Shell
    magnification: float


@dataclass(frozen=True)
class Kept:
    """One batch norm that stays, and why."""

    address: str
    reason: str


Decision = Fold | Kept


def plan(tape: Tape, model: nn.Module) -> tuple[Decision, ...]:
    """Return a decision for every batch norm call of a recording, in order, then for every one not called.

    Args:
        tape: a recording of inference.
        model: the network that was recorded, in the modes that its user gave it.
    """
    flow = Flow(tape, model)
    calls = [
        call for call in tape.in_phase("forward") if call.op == "batch_norm" and _is_batch_norm(flow, call)
    ]
    decisions = [_decide(flow, call) for call in calls]
    return (*whole_shells(flow, decisions), *_not_called(flow))


def whole_shells(flow: Flow, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Return the decisions with folds turned down whose module makes calls that don't fold, or not alike.

    A module is replaced for all of its calls or for none.
    """
    decisions = tuple(decisions)
    shells: dict[str, list[Fold]] = {}
    for decision in decisions:
        if isinstance(decision, Fold):
            shells.setdefault(decision.shell.path, []).append(decision)
    return tuple(
        _unless_split(flow, decision, shells[decision.shell.path]) if isinstance(decision, Fold) else decision
        for decision in decisions
    )


def _unless_split(flow: Flow, fold: Fold, alike: list[Fold]) -> Decision:
    num_calls = len(flow.calls_of_module(fold.shell.path))
    if num_calls > len(alike):
        folded = {str(other.call.address.module) for other in alike}
        calls = (str(call.address) for call in flow.calls_of_module(fold.shell.path))
        kept = next(address for address in calls if address not in folded)
        return Kept(fold.address, f"its module is also called at {kept}, where it stays")
    if any(other.shell != fold.shell for other in alike):
        return Kept(fold.address, "its module's calls run different parts of it")
    return fold


def _decide(flow: Flow, call: OperatorCall) -> Decision:
    address = _name(flow, call)
    try:
        if flow.tape.assumptions:
            raise Stays(f"what runs depends on data, and one case was recorded: {flow.tape.assumptions[0]}")
        affine = affine_of(flow, call)
        layer = layer_before(flow, call)
        shell = shell_of(flow, call, affine)
        scale = affine.scale_in(flow.model)
        shift = affine.shift_in(flow.model, layer.bias_in(flow.model))
        require_finite(layer, *new_weights(layer, scale, shift, flow.model))
    except Stays as reason:
        return Kept(address, str(reason))
    magnification = scale.abs().max().item() if scale.numel() else 0.0
    return Fold(address, call, affine, layer, shell, magnification)


def _name(flow: Flow, call: OperatorCall) -> str:
    """The module call's address if the operator is all that the module does itself, else the operator's."""
    if call.module is not None:
        module_call = flow.tape.modules[call.module]
        alone = [operator.index for operator in flow.operators_of(module_call)] == [call.index]
        if alone and path_of(module_call):
            return str(module_call.address)
    return str(call.address)


def _is_batch_norm(flow: Flow, call: OperatorCall) -> bool:
    # Instance norm and weight standardisation run the same operator.
    module = None if call.module is None else flow.module_of(flow.tape.modules[call.module])
    if isinstance(module, _BatchNorm):
        return True
    return not isinstance(module, _InstanceNorm) and normalises_samples(flow.tape, call)


def _not_called(flow: Flow) -> list[Kept]:
    return [
        Kept(path or ROOT, "wasn't called on these inputs")
        for path, module in flow.model.named_modules()
        if isinstance(module, _BatchNorm) and not flow.calls_of_module(path)
    ]

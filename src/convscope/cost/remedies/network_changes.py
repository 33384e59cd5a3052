"""Changes of a network that make its training step need less memory: activations, norms, a frozen stem.

Of these only the in-place activations and lean batch norm compute the same.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.cost.remedies.changes import Change, Situation, enclosing, listed
from convscope.norm import LocalResponseNorm, is_lean, lean
from convscope.norm.choose import num_groups
from convscope.tape import ModuleCall, Tape

# Activations whose in-place form keeps its result alone, which the next layer keeps anyway (PyTorch's
# tools/autograd/derivatives.yaml). SiLU, Hardswish and Mish copy their input first, and save nothing.
_KEEP_RESULT = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Threshold)
_RELUS = {"relu", "hardtanh", "leaky_relu", "elu", "celu", "selu", "threshold"}
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_RESPONSE_NORMS = (nn.LocalResponseNorm, LocalResponseNorm)


def in_place_activations(now: Situation) -> Iterator[Change]:
    """ReLUs that write over their input, wherever nothing else needs it."""
    calls: dict[str, list[ModuleCall]] = {}
    for call in now.tape.modules:
        if not call.recompute:
            calls.setdefault(call.address.path, []).append(call)
    found = {
        path: calls[path]
        for path, module in now.model.named_modules()
        if isinstance(module, _KEEP_RESULT) and getattr(module, "inplace", True) is False and path in calls
    }
    if not found:
        return
    uses = _Uses(now.tape)
    reasons = {path: next(filter(None, map(uses.needs_input_of, found[path])), "") for path in found}
    safe = [path for path in found if not reasons[path]]
    bound: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        if reason:
            bound.setdefault(reason, []).append(path)
    inside = {call.index for group in found.values() for call in group}
    functions = sum(
        call.op in _RELUS and call.module not in inside and call.overload.split(".")[1] == call.op
        for call in now.tape.in_phase("forward")
    )
    notes = [f"not {listed(paths)}: {reason}" for reason, paths in bound.items()] if safe else []
    notes += [f"{functions} more are function calls, left as they are"] if functions else []

    def apply(model: nn.Module) -> None:
        for path in safe:
            model.get_submodule(path).inplace = True  # type: ignore[assignment]

    yield Change(
        "inplace-relu",
        f"{len(safe)} activation modules write over their input",
        "nn.ReLU(inplace=True)" + (f" for {listed(safe)}" if safe else ""),
        True,
        "; ".join(notes),
        apply,
        impossible="" if safe else "; ".join(f"{listed(paths)}: {why}" for why, paths in bound.items()),
    )


def lean_batch_norm(now: Situation) -> Iterator[Change]:
    """What the next layer saves is made again from what batch norm saves."""
    norms = [module for module in now.model.modules() if isinstance(module, _BatchNorm)]
    if not now.tape.training or not norms or is_lean(now.model):
        return

    def apply(model: nn.Module) -> None:
        lean(model)

    yield Change(
        "lean",
        "activations that batch norm's input gives again aren't saved, bit for bit the same step",
        "convscope.norm.lean(model)",
        True,
        f"backward runs {len(norms)} norms and what follows them a second time",
        apply,
    )


def frozen_stem(now: Situation) -> Iterator[Change]:
    """No gradients for what comes before the first stage: nothing of it is kept for backward."""
    if not now.tape.training:
        return
    first = _first_stage(now.tape)
    stem: dict[str, None] = {}
    for call in now.tape.in_phase("forward"):
        if first is None or call.index >= first:
            break
        for value in call.inputs:
            parameter = now.tape.parameter_of(value)
            if parameter is not None and parameter.requires_grad:
                stem.setdefault(parameter.name, None)
    if not stem:
        return
    norms = [
        path
        for path, module in now.model.named_modules()
        if isinstance(module, _BatchNorm) and any(name.startswith(f"{path}.") for name in stem)
    ]
    note = f"{listed(norms)} still uses and updates batch statistics, unless put in eval()" if norms else ""

    def apply(model: nn.Module) -> None:
        _freeze(model, set(stem))

    yield Change(
        "frozen-stem",
        f"no gradients for the {len(stem)} parameters before the first stage",
        f"for name in {sorted(stem)}: model.get_parameter(name).requires_grad_(False)",
        False,
        note,
        apply,
    )


def other_norms(now: Situation) -> Iterator[Change]:
    """Group norm in place of batch norm; no norms at all."""
    if not now.tape.training:
        return
    modules = list(now.model.modules())
    batch = [module for module in modules if isinstance(module, _BatchNorm)]
    changed = "it is another network, to be trained anew"
    if batch:
        yield Change(
            "group-norm",
            f"group norm in place of {len(batch)} batch norms",
            "nn.GroupNorm(groups, channels) where nn.BatchNorm2d(channels) was",
            False,
            changed,
            lambda model: _replace(model, _BatchNorm, _group_norm),
        )
    others = (_BatchNorm, nn.GroupNorm, *_INSTANCE_NORMS, *_RESPONSE_NORMS)
    norms = [module for module in modules if isinstance(module, others)]
    if norms:
        yield Change(
            "no-norm",
            f"none of the {len(norms)} normalisation layers",
            "nn.Identity() where they were",
            False,
            changed,
            lambda model: _replace(model, others, lambda _: nn.Identity()),
        )


class _Uses:
    """Who needs the tensors of a recorded step: which calls read or keep each storage, and its outputs.

    Args:
        tape: the recording.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._readers: dict[int, list[int]] = {}
        self._keepers: dict[int, list[int]] = {}
        for call in tape.calls:
            for uses, values in ((self._readers, call.inputs), (self._keepers, call.saved)):
                for storage in {tape.values[value].storage for value in values}:
                    uses.setdefault(storage, []).append(call.index)
        networks = (module.outputs for module in tape.modules if module.parent is None)
        outputs = {*tape.outputs, *chain.from_iterable(networks)}
        self._outputs = {tape.values[value].storage for value in outputs}

    def needs_input_of(self, activation: ModuleCall) -> str:
        """Return why an activation mustn't write over its input; empty if it may."""
        calls = [call.index for call in self._tape.calls_of(activation.index)]
        if len(activation.inputs) != 1 or not calls:
            return "it isn't called with one tensor"
        block = self._tape.storages[self._tape.values[activation.inputs[0]].storage]
        if not self._outputs:
            return "the network's outputs aren't known"
        if block.birth < 0:
            return "its input is there before the step"
        # What is alive after the step is held by somebody: an output object, an attribute of a module.
        if block.index in self._outputs or block.death is None:
            return "its input is handed out"
        ours = set(calls)
        read = (call for call in self._readers.get(block.index, ()) if call > calls[0])
        if ours.issuperset(read) and ours.issuperset(self._keepers.get(block.index, ())):
            return ""
        return "its input is needed again"


def _first_stage(tape: Tape) -> int | None:
    """The first operator call of the first stage.

    The stem is the part with the network's first weight: its child module, as far down as that child holds
    most of the weights. The first stage is the next part with a weight.
    """
    weighted: dict[int, int] = {}
    for call in tape.in_phase("forward"):
        for value in call.inputs:
            parameter = tape.parameter_of(value)
            if parameter is not None and len(parameter.shape) > 1:
                weighted.setdefault(parameter.storage, call.index)
    calls = list(weighted.values())
    within = [enclosing(tape, tape.calls[index].module) for index in calls]
    for depth in range(1, len(within[0]) if within else 0):
        inside = [depth < len(chain) and chain[depth] == within[0][depth] for chain in within]
        if 2 * sum(inside) <= len(calls):
            position = inside.index(False)
            part = within[position][depth] if depth < len(within[position]) else None
            begins = (c.index for c in tape.calls if part in enclosing(tape, c.module))
            return calls[position] if part is None else next(begins, calls[position])
    return calls[1] if len(calls) > 1 else None


def _freeze(model: nn.Module, names: set[str]) -> None:
    """Put twins without gradients in the place of some parameters; the parameters themselves stay."""
    twins: dict[int, nn.Parameter] = {}
    targets = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in names}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in targets:
                twin = twins.setdefault(id(parameter), nn.Parameter(parameter.detach(), requires_grad=False))
                module._parameters[name] = twin


def _replace(
    model: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...], make: Callable[[Any], nn.Module]
) -> None:
    made: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, kinds):
                if id(child) not in made:
                    made[id(child)] = _with_activation(child, make(child))
                parent._modules[name] = made[id(child)]


def _with_activation(old: nn.Module, new: nn.Module) -> nn.Module:
    """Timm's norms that end in an activation keep it."""
    tail = [part for part in (getattr(old, "drop", None), getattr(old, "act", None)) if part is not None]
    return nn.Sequential(new, *tail).train(old.training) if tail else new.train(old.training)


def _group_norm(old: _BatchNorm) -> nn.Module:
    dtype = None if old.weight is None else old.weight.dtype
    return nn.GroupNorm(
        num_groups(old.num_features), old.num_features, eps=old.eps, affine=old.affine, dtype=dtype
    )

"""``fold``: batch norm moved into the layers before it, with proof."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.inference import outside_inference_mode
from convscope.core.modes import require_modes
from convscope.fold.layers.splits import Parted
from convscope.fold.ledger import Folded, Ledger, LedgerEntry, OutputError, Proof
from convscope.fold.norms.identity import listed
from convscope.fold.options import Border, Options
from convscope.fold.paths.certain import Certain
from convscope.fold.paths.paths import recorded_paths
from convscope.fold.planning.plan import Decision
from convscope.fold.planning.staged import Stages
from convscope.fold.proof.method import NOTHING_FOLDED, method_of
from convscope.fold.proof.proof import THRESHOLDS, NotComparable, Witness
from convscope.fold.proof.settle import Settled, copied, settle
from convscope.fold.proof.trials import described
from convscope.fold.speed import measure_speed
from convscope.tape import Tape, require_module

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
_WITHOUT_FLOAT64 = {
    "meta": ("holds no numbers", "make it there and load its weights"),
    "mps": ("has no float64 numbers", "move it with model.cpu()"),
}


def fold(
    model: nn.Module,
    inputs: Any,
    *,
    materialise: bool = False,
    border: Border = "keep",
    merge: bool = True,
    measure: bool = False,
    repeats: int = 20,
) -> Folded:
    """Return a copy of a network whose batch norms are folded into the layers around them, with proof.

    At test time batch norm is y = s x + t with s = γ / √(v + ε) and t = β − s μ per channel. It becomes the
    identity if x and y may be computed as a_x x + b_x and a_y y + b_y with a_x = s a_y and b_x = a_y t + b_y:
    what the operators around them let pass is decided from the recorded data flow, not from names or order,
    and convolution and linear layers take the rest into their weights: W' = a_out W / a_in,
    b' = a_out (b − Σ W b_in / a_in) + b_out. New weights are computed in float64 and cast once. A fold whose
    proof fails is taken back.

    Args:
        model: any network that can be recorded, batch norms in evaluation mode; it stays as it is.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(2, 3, 224, 224)``.
        materialise: whether weights that are computed in every run (weight norm, standardised weights) become
            plain ones where that lets a batch norm fold.
        border: what to do about a batch norm before a layer that pads with zeros, whose border would show
            its shift: ``"keep"`` the shift in its place; ``"map"``: a bias for each position, which fixes the
            inputs' size; ``"pad"``: pad with the shift instead of zeros, an operator more.
        merge: whether parallel linear branches become one convolution.
        measure: whether to time both networks on the inputs.
        repeats: timed passes of each.

    Returns:
        :class:`Folded`: the folded copy, of the same class, in the same modes; the ledger, with the reason
        for every batch norm that stays; the proof.

    Raises:
        ConvscopeError: the network can't be recorded or copied, or is a wrapper (DataParallel, compiled), or
            there is none (a class, a state_dict); the inputs are none of those.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, section 3.1: at inference a batch norm is
        a fixed linear transform; Jacob et al., arXiv 1712.05877, section 3.2.

    Not covered: batch norms whose scale or shift meets an operator that lets neither pass on both sides;
    ``docs/folding.md`` lists them. Training with what is left: dropout and drop-path between a batch norm and
    the layer that took it in act on other values.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> folded = fold(net, (2, 3, 9, 7))
        >>> folded.ledger.folded, isinstance(folded.model[1], nn.Identity), folded.max_error < 1e-9
        (1, True, True)
    """
    if border not in get_args(Border):
        raise ConvscopeError(f"border={border!r}", "'keep', 'map' or 'pad'", "choose one of them")
    _refuse_unsupported(model)
    with outside_inference_mode():
        options = Options(materialise, border, merge)
        return _folded(model, inputs, options, repeats if measure else None)


def _folded(model: nn.Module, inputs: Any, options: Options, repeats: int | None) -> Folded:
    """Plan, prove, carry out; ``repeats`` is None for no timing."""
    trial_inputs = described(inputs, _floating_dtype(model))
    paths = recorded_paths(model, inputs)
    certain = Certain(paths) if paths.doubt or paths.tapes[0].questions else None

    def stages(network: nn.Module, tape: Tape) -> Stages:
        return Stages(network, tape, trial_inputs, options, certain)

    planner = stages(model, paths.tapes[0]) if certain else Parted(model, paths.tapes[0], inputs, stages)
    settled = settle(model, planner, trial_inputs)
    result = copied(model)
    settled.plan.carry_out(result)
    ledger = Ledger(tuple(_entry(decision, settled) for decision in settled.plan.decisions))
    proof = _proof(settled, _own_error(model, result, settled, trial_inputs))
    speed = None if repeats is None else measure_speed(model, result, inputs, repeats)
    return Folded(result, ledger, proof.errors[0].max_error, proof.errors[0].mean_error, proof, speed)


def _own_error(model: nn.Module, result: nn.Module, settled: Settled, inputs: Any) -> OutputError | None:
    """How far the folded copy's outputs are from the model's in its own dtype."""
    dtype = _floating_dtype(model)
    if settled.comparison is None or dtype == settled.dtype:
        return None
    try:
        comparison = Witness(copied(model), inputs, (), most=2).compare(result, ())
    except NotComparable:  # such as half precision on a CPU
        return None
    return OutputError(_name(dtype), comparison.max_error, comparison.mean_error)


def _entry(decision: Decision, settled: Settled) -> LedgerEntry:
    into = listed(decision.into)
    comparison, place = settled.comparison, decision.place
    error = comparison.at.get(place.address) if comparison is not None and place is not None else None
    size, remedy = decision.magnification if decision.verdict != "kept" else None, decision.remedy
    return LedgerEntry(decision.address, decision.verdict, into, decision.reason, error, size, remedy)


def _proof(settled: Settled, own_error: OutputError | None) -> Proof:
    comparison = settled.comparison
    if comparison is None:
        error = OutputError(_name(torch.float64), 0.0, 0.0)
        return Proof(True, THRESHOLDS[torch.float64], (error,), (), NOTHING_FOLDED)
    error = OutputError(_name(settled.dtype), comparison.max_error, comparison.mean_error)
    return Proof(
        passed=comparison.within(settled.threshold),
        threshold=settled.threshold,
        errors=(error,) if own_error is None else (error, own_error),
        trials=tuple(trial.label() for trial in comparison.trials),
        method=method_of(comparison),
    )


def _refuse_unsupported(model: nn.Module) -> None:
    _require_network(model)
    require_modes(model)
    attribute = _WRAPPERS.get(type(model).__name__)
    if attribute is not None:
        raise ConvscopeError(
            f"a model wrapped in {type(model).__name__}", "the network itself", f"pass model.{attribute}"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type in _WITHOUT_FLOAT64:
            lack, action = _WITHOUT_FLOAT64[tensor.device.type]
            raise ConvscopeError(
                f"tensor {name!r} on the {tensor.device.type} device, which {lack}",
                "a model on the CPU or a CUDA device",
                action,
            )


def _require_network(model: object) -> None:
    if isinstance(model, type):
        raise ConvscopeError(
            f"the class {model.__name__} as the network",
            "a network made from it",
            f"pass {model.__name__}(...)",
        )
    if isinstance(model, Mapping):
        raise ConvscopeError(
            f"a dict of {len(model)} entries as the network",
            "the network itself",
            "if it is a state_dict, build the network and give it to model.load_state_dict(...)",
        )
    require_module(model)


def _floating_dtype(model: nn.Module) -> torch.dtype:
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

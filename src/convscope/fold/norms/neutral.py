"""The edit after which a batch norm that is called as a function doesn't run: its tensors become neutral.

A neutral batch norm returns what it is given: μ = 0, v = 1 − ε, γ = 1, β = 0. On top of that, its running
mean answers for it (:mod:`convscope.fold.norms.neutral_mean`), so that no operator runs. Where that isn't
heard (``torch.jit.script``, strict export), the batch norm runs and changes nothing. Neutral tensors don't
train, and aren't in the state dict, so that the weights from before the fold don't load.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from convscope.fold.edits import Swap
from convscope.fold.norms.functional import Skip
from convscope.fold.norms.identity import FoldedBatchNorm, configured
from convscope.fold.norms.lending import Loan, lend
from convscope.fold.norms.neutral_mean import NeutralMean, NeutralMeanBeforeBias
from convscope.fold.recorded.flow import has_hooks
from convscope.fold.recorded.slots import Slot


@dataclass(frozen=True)
class Neutralise:
    """Makes a batch norm neutral. Carry it out before layers get weights: it clears a bias that is lent.

    Attributes:
        skip: the batch norm.
        into: addresses of the layers that took it in.
        rest: what is still to be added, float64, (C, 1, …) or that for every sample; None if nothing is.
    """

    skip: Skip
    into: tuple[str, ...]
    rest: Tensor | None = None

    def __call__(self, model: nn.Module) -> None:
        """Carry it out on a network, in place."""
        held = dict(self.skip.held)
        for name, slot in self.skip.held:
            self._neutralise(model, name, slot)
        holder = held["running_mean"].path
        adds_itself = bool(self._term) and holder in self.skip.callers
        if holder and not adds_itself and _is_plain(model.get_submodule(holder)):
            Swap(holder, self._identity)(model)
        if self.skip.lent_to is not None:
            (caller,) = self.skip.callers
            loan = Loan(_within(caller, self.skip.lent_to), _within(caller, held["bias"]))
            lend(model.get_submodule(caller), [loan])

    @property
    def _term(self) -> str:
        """Which tensor keeps what is still to be added; the running mean is subtracted, by the operator."""
        if self.rest is None and self.skip.lent_to is None:
            return ""
        return "bias" if "bias" in dict(self.skip.held) else "running_mean"

    def _neutralise(self, model: nn.Module, name: str, slot: Slot) -> None:
        module, tensor = slot.module_in(model), slot.tensor_in(model)
        number = {"running_var": 1 - self.skip.eps, "weight": 1.0}.get(name, 0.0)
        neutral = torch.full_like(tensor, number, requires_grad=False)
        if name == self._term:
            if self.rest is not None:
                rest = self.rest.reshape(-1, tensor.numel())[0]
                neutral.copy_(rest if name == "bias" else -rest)
            with torch.no_grad():
                tensor.copy_(neutral)
            return
        for registered in (module._parameters, module._buffers):
            registered.pop(slot.attribute, None)
        if name == "running_mean":
            made = NeutralMeanBeforeBias if self._term else NeutralMean
            module.__dict__[slot.attribute] = neutral.as_subclass(made)
        else:
            module.register_buffer(slot.attribute, neutral, persistent=False)

    def _identity(self, batch_norm: nn.Module) -> nn.Module:
        """What stands in the place of PyTorch's own layer, with the tensors that code asks it for."""
        made = FoldedBatchNorm(f"{type(batch_norm).__name__}({batch_norm.extra_repr()})", self.into)
        for name, parameter in batch_norm._parameters.items():
            made.register_parameter(name, parameter)
        for name, buffer in batch_norm._buffers.items():
            made.register_buffer(name, buffer, persistent=name == self._term)
        if "running_mean" in vars(batch_norm):
            made.__dict__["running_mean"] = batch_norm.running_mean
        return configured(made, batch_norm)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a layer of PyTorch's own that nobody watches or has given other code."""
    is_own = isinstance(module, _NormBase) and type(module).__module__.startswith("torch.nn.modules.")
    return is_own and not has_hooks(module) and "forward" not in vars(module)


def _within(path: str, slot: Slot) -> str:
    """The name of a tensor within a module that holds it."""
    return slot.name.removeprefix(f"{path}." if path else "")

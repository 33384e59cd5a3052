"""The edit by which a module's own code skips a batch norm: neutral tensors, and a class that skips it.

A neutral batch norm returns what it is given: μ = 0, v = 1 − ε, γ = 1, β = 0. Whoever still runs it (another method
than ``forward``, a compiled script) gets the right result, so that nothing relies on its being skipped. Neutral tensors
don't train and aren't in the state dict, where the batch norm would be missed if an older one is loaded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from convscope.fold.edits import Swap
from convscope.fold.flow import has_hooks
from convscope.fold.functional import Skip
from convscope.fold.identity import FoldedBatchNorm
from convscope.fold.skipping import SkippedCall, skip_calls
from convscope.fold.slots import Slot

_CONFIGURATION = ("num_features", "eps", "momentum", "affine", "track_running_stats")


@dataclass(frozen=True)
class Skips:
    """Lets the code that calls a batch norm skip it. Carry it out before layers get their weights.

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
        for name, slot in self.skip.held:
            self._neutralise(model, name, slot)
        holder = dict(self.skip.held)["running_mean"].path
        if holder and _is_plain(model.get_submodule(holder)):
            Swap(holder, self._identity)(model)
        for path in self.skip.callers:
            if path != holder or not isinstance(model.get_submodule(path), FoldedBatchNorm):
                skip_calls(model.get_submodule(path), [self._call(path)])

    @property
    def _term(self) -> str:
        """Which tensor keeps what is still to be added."""
        if self.rest is None and self.skip.lent_to is None:
            return ""
        return "bias" if "bias" in dict(self.skip.held) else "running_mean"

    def _call(self, caller: str) -> SkippedCall:
        """What the code of a module skips, by names within it."""
        held, weight = dict(self.skip.held), self.skip.lent_to
        names = [held["running_mean"], held[self._term] if self._term else None, weight]
        return SkippedCall(*("" if slot is None else _within(caller, slot) for slot in names))

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
        module.register_buffer(slot.attribute, neutral, persistent=False)

    def _identity(self, batch_norm: nn.Module) -> nn.Module:
        """What stands in the place of PyTorch's own layer: code that asks for its tensors still finds them."""
        made = FoldedBatchNorm(f"{type(batch_norm).__name__}({batch_norm.extra_repr()})", self.into)
        for name, parameter in batch_norm._parameters.items():
            made.register_parameter(name, parameter)
        for name, buffer in batch_norm._buffers.items():
            made.register_buffer(name, buffer, persistent=name == self._term)
        for name in _CONFIGURATION:
            setattr(made, name, getattr(batch_norm, name))
        return made


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a layer of PyTorch's own that nobody watches."""
    is_own = isinstance(module, _NormBase) and type(module).__module__.startswith("torch.nn.modules.")
    return is_own and not has_hooks(module)


def _within(path: str, slot: Slot) -> str:
    """The name of a tensor within a module that holds it."""
    return slot.name.removeprefix(f"{path}." if path else "")

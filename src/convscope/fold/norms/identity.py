"""What stands where a folded batch norm was: modules that hand their input on and say what they were."""

import copy
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

_MOST_LISTED = 4
_CONFIGURATION = ("num_features", "eps", "momentum", "affine", "track_running_stats")


def listed(addresses: tuple[str, ...]) -> str:
    """Return addresses as text, the first few of them.

    Example:
        >>> listed(("a#1", "b#1", "c#1", "d#1", "e#1", "f#1"))
        'a#1, b#1, c#1, d#1 and 2 more'
    """
    more = f" and {len(addresses) - _MOST_LISTED} more" if len(addresses) > _MOST_LISTED else ""
    return ", ".join(addresses[:_MOST_LISTED]) + more


class FoldedBatchNorm(nn.Identity):
    """The identity, in the place of a batch norm whose scale and shift now are in other layers' weights.

    Attributes:
        was: the batch norm's printed form, such as ``"BatchNorm2d(8, eps=1e-05, …)"``.
        into: the addresses of the layers that took it in.

    Example:
        >>> FoldedBatchNorm("BatchNorm2d(8)", ("conv1#1",))
        FoldedBatchNorm(was BatchNorm2d(8), now in conv1#1)
    """

    def __init__(self, was: str, into: tuple[str, ...]) -> None:
        super().__init__()
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now in {listed(self.into)}"


class PartlyFoldedBatchNorm(nn.Module):
    """What is left of a batch norm whose scale now is in other layers' weights: a term per channel.

    Attributes:
        was: the batch norm's printed form.
        into: the addresses of the layers that took its scale in.
        bias: the term, of shape (C, 1, …).

    Args:
        was, into: see above.
        bias: the term.

    Example:
        >>> import torch
        >>> layer = PartlyFoldedBatchNorm("BatchNorm2d(1)", ("conv1#1",), torch.ones(1, 1, 1))
        >>> layer(torch.zeros(1, 1, 1, 2))
        tensor([[[[1., 1.]]]], grad_fn=<AddBackward0>)
    """

    def __init__(self, was: str, into: tuple[str, ...], bias: Tensor) -> None:
        super().__init__()
        self.was = was
        self.into = into
        self.bias = nn.Parameter(bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the input plus the term."""
        return input + self.bias

    def extra_repr(self) -> str:
        """Return what it was and where its scale went."""
        return f"the shift of {self.was}, whose scale is in {listed(self.into)}"


class FoldedBatchNormAct(nn.Sequential):
    """What a batch norm with parts of its own (an activation) still does after its normalisation is folded.

    Attributes:
        was: the batch norm's class and number of channels.
        into: the addresses of the layers that took its normalisation in.
    """

    def __init__(self, was: str, into: tuple[str, ...], parts: dict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(parts))
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now in {listed(self.into)}"


@dataclass(frozen=True)
class Replacement:
    """Makes what takes a batch norm's place.

    Attributes:
        into: addresses of the layers that took it in.
        parts: names of its own submodules that still run.
        rest: the term that stays, float64 of shape (C, 1, …); None if nothing does.
    """

    into: tuple[str, ...]
    parts: tuple[str, ...]
    rest: Tensor | None = None

    def __call__(self, batch_norm: nn.Module) -> nn.Module:
        """Return the module for a batch norm's place, which code may ask for its ε or number of channels."""
        return configured(self._module(batch_norm), batch_norm)

    def _module(self, batch_norm: nn.Module) -> nn.Module:
        was = f"{type(batch_norm).__name__}({batch_norm.extra_repr()})"
        parts = {name: batch_norm.get_submodule(name) for name in self.parts}
        if self.rest is None:
            return FoldedBatchNormAct(was, self.into, parts) if parts else FoldedBatchNorm(was, self.into)
        left = PartlyFoldedBatchNorm(was, self.into, _like(self.rest, batch_norm))
        return nn.Sequential(OrderedDict(shift=left, **parts)) if parts else left


def configured(module: nn.Module, batch_norm: nn.Module) -> nn.Module:
    """Return a module, told how a batch norm is configured.

    Example:
        >>> configured(nn.Identity(), nn.BatchNorm2d(8)).num_features
        8
    """
    held = vars(batch_norm)
    module.__dict__.update((name, held[name]) for name in _CONFIGURATION if name in held)
    return module


def _like(numbers: Tensor, batch_norm: nn.Module) -> Tensor:
    """Numbers in the dtype and on the device of a batch norm's running mean."""
    mean = batch_norm.running_mean
    assert isinstance(mean, Tensor)
    return numbers.to(device=mean.device, dtype=mean.dtype, copy=True)


def out_of_place(module: nn.Module) -> nn.Module:
    """Return a copy of a module which doesn't write to its input."""
    made = copy.copy(module)
    made.inplace = False  # type: ignore[assignment]
    return made

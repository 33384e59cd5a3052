"""Where repairs are made: the copy, what was measured of it, and the data."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from convscope.checkup.measuring.batches import Batch, generators_of
from convscope.checkup.measuring.losses import Loss, tensors_of
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan
from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.probe.batches import items_of


class Reread:
    """Data that is read again from its beginning as often as it is asked for, up to a number of batches.

    A loader that shuffles by a generator of its own shuffles alike each time; the global generators are in
    the readers' care.

    Raises:
        ConvscopeError: the data can be read only once, or isn't of a known form.
    """

    def __init__(self, data: Any, max_batches: int | None) -> None:
        self._items, self._max_batches = items_of(data), max_batches
        if isinstance(self._items, Iterator):
            raise ConvscopeError(
                f"data that can be read once ({type(data).__name__}), to check, mend and check again",
                "data that can be read several times, such as a DataLoader or a list",
                "pass list(data)",
            )
        self._states = [(each, each.get_state()) for each in generators_of(self._items)]

    def __iter__(self) -> Iterator[Any]:
        for generator, state in self._states:
            generator.set_state(state)
        return islice(iter(self._items), self._max_batches)

    def __len__(self) -> int:
        whole = len(self._items)  # type: ignore[arg-type]
        return whole if self._max_batches is None else min(whole, self._max_batches)


@dataclass(frozen=True, eq=False)
class Workshop:
    """What a repair works with.

    Attributes:
        model: the copy, which it changes.
        observation: of the model before any repair.
        data: batches; None without them.
        first: the first of them, on which outputs are compared.
        loss: or None for cross-entropy.
        plan: tells of progress.
    """

    model: nn.Module
    observation: Observation
    data: Reread | None
    first: Batch | None
    loss: Loss | None
    plan: CheckupPlan

    def layer(self, address: str) -> nn.Module:
        """Return the module of the copy at a finding's address."""
        path = path_of(address)
        return self.model if path == ROOT else self.model.get_submodule(path)

    def outputs(self) -> list[Tensor]:
        """Return what the copy puts out in evaluation mode for the first batch; empty without data."""
        if self.first is None:
            return []
        with probing(self.model), torch.no_grad():
            outputs = self.model(*self.first.args, **self.first.kwargs)
        return [out.clone() for out in tensors_of(outputs)]


def path_of(address: str) -> str:
    """Return the module's path in an address.

    Example:
        >>> path_of("layer1.0.bn1#2:batch_norm.1")
        'layer1.0.bn1'
    """
    return address.partition(":")[0].partition("#")[0]


def largest_change(before: list[Tensor], after: list[Tensor]) -> float | None:
    """Return the largest |change| over the largest |output|; None if nothing was put out.

    Example:
        >>> largest_change([torch.tensor([1.0, -4.0])], [torch.tensor([1.5, -4.0])])
        0.125
    """
    if not before:
        return None
    scale = max(float(out.double().abs().max()) if out.numel() else 0.0 for out in before)
    change = max(
        float((new.double() - old.double()).abs().max()) if old.numel() else 0.0
        for old, new in zip(before, after, strict=True)
    )
    return change / scale if scale else change


def counted(count: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> counted(1, "layer"), counted(2, "bias")
        ('1 layer', '2 biases')
    """
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"

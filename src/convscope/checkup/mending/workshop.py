"""Where repairs are made: the copy, what was measured of it, and the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.criterion import Criterion
from convscope.checkup.measuring.generators import draws_of, global_draws
from convscope.checkup.measuring.outputs import tensors_of
from convscope.checkup.observed import Observation
from convscope.checkup.plan import CheckupPlan
from convscope.checkup.result import Checkup
from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding
from convscope.core.units import counted
from convscope.probe import probing
from convscope.probe.batches import items_of


class Reread:
    """Data that is read again from its beginning as often as it is asked for, up to a number of batches.

    A loader that shuffles by a generator of its own, or by the global ones, shuffles alike each time: each
    reading begins with their states of the time when this was made, and leaves them to whom it may concern.
    What shuffles by something else reads differently each time, which shows.

    Attributes:
        is_alike: whether all readings since :meth:`note_order` have had the same batches in the same order.

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
        self._draws, self._restore_globals = draws_of(self._items), global_draws()
        self._order: list[bytes] = []
        self.is_alike = True

    def __iter__(self) -> Iterator[Any]:
        for each in self._draws:
            each.restore()
        self._restore_globals()
        return self._noted(islice(iter(self._items), self._max_batches))

    def note_order(self) -> None:
        """Compare the readings from here on with one another, and not with those before."""
        self._order, self.is_alike = [], True

    def _noted(self, items: Iterator[Any]) -> Iterator[Any]:
        for number, item in enumerate(items):
            mark = _mark(item)
            if number == len(self._order):
                self._order.append(mark)
            self.is_alike &= mark == self._order[number]
            yield item

    def __len__(self) -> int:
        whole = len(self._items)  # type: ignore[arg-type]
        return whole if self._max_batches is None else min(whole, self._max_batches)


def _mark(item: Any) -> bytes:
    """What tells batches apart: a few values, and the sum, of each tensor."""
    leaves = tree_leaves(dict(item) if isinstance(item, Mapping) else item)
    tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()]
    marks = [torch.cat((each.reshape(-1)[:8].double(), each.double().sum()[None])).cpu() for each in tensors]
    return b"".join(mark.numpy().tobytes() for mark in marks)


@dataclass(frozen=True, eq=False)
class Workshop:
    """What a repair works with.

    Attributes:
        model: the copy, which it changes.
        observation: of the copy as it is when a stage of repairs begins.
        found: the check-up of that.
        data: batches; None without them.
        first: the first of them, on which outputs are compared.
        criterion: how losses are taken.
        plan: tells of progress.
    """

    model: nn.Module
    observation: Observation
    found: Checkup
    data: Reread | None
    first: Batch | None
    criterion: Criterion
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
            outputs = self.first.run(self.model)
        return [out.clone() for out in tensors_of(outputs)]


def path_of(address: str) -> str:
    """Return the module's path in an address.

    Example:
        >>> path_of("layer1.0.bn1#2:batch_norm.1")
        'layer1.0.bn1'
    """
    return address.partition("#")[0]


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


def fault_ids(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the faults of findings, each once."""
    return tuple(dict.fromkeys(finding.fault for finding in findings))


def addresses_of(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the addresses of findings, each once."""
    return tuple(dict.fromkeys(finding.address for finding in findings))


def counted_layers(findings: Sequence[Finding]) -> str:
    """Return how many layers findings are about, in words."""
    return counted(len({path_of(finding.address) for finding in findings}), "layer")

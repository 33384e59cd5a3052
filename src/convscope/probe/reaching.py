"""Values that a run comes by: copies with their own place in autograd's graph, so that the run may go on."""

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.overrides import enable_reentrant_dispatch
from torch.utils._pytree import tree_leaves


class Reaching:
    """Collects the values at some addresses in one run, which may end once all are there.

    Args:
        wanted: the addresses, as the probe writes them.

    Attributes:
        found: copies of what there was, by address, with their graph; what the network writes in place
            later on changes neither.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self.found: dict[str, Tensor] = {}
        self._pending: list[tuple[str, Any]] = []

    @property
    def has_news(self) -> bool:
        """Whether there is something to settle, or everything is there."""
        return bool(self._pending) or len(self.found) == len(self._wanted)

    def note(self, address: str, result: Any) -> None:
        """Remember an operator's or a module's result; autograd gives an operator's its place only later."""
        if address in self._wanted and address not in self.found:
            self._pending.append((address, result))

    def settle(self, *, dispatching: bool) -> bool:
        """Copy what was noted, now that it is in the graph; return whether everything is there.

        Args:
            dispatching: whether this is called while an operator is being dispatched, below autograd.
        """
        for address, result in self._pending:
            tensor = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
            if tensor is not None:
                with enable_reentrant_dispatch() if dispatching else nullcontext():
                    self.found[address] = tensor.clone()
        self._pending.clear()
        return len(self.found) == len(self._wanted)

"""Work that all processes of a group do on data of their own, and whose results all of them get."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from convscope.core.errors import ConvscopeError

_T = TypeVar("_T")


class Processes:
    """The processes that pool their statistics; a single one where ``torch.distributed`` isn't in use.

    Args:
        group: a process group, or None for the default one.

    Example:
        >>> Processes(None).each(lambda: 3)
        [3]
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        in_use = distributed.is_available() and distributed.is_initialized()
        self.count = distributed.get_world_size(group) if in_use else 1

    def each(self, work: Callable[[], _T]) -> list[_T]:
        """Do some work and return every process's result, in the order of ranks; the same list everywhere.

        All processes must call this, in the same order. Results are pickled, so tensors must be in the CPU's
        memory.

        Raises:
            ConvscopeError: the work failed on another process.
            Exception: the work failed here; the other processes are told.
        """
        if self.count == 1:
            return [work()]
        result: _T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        outcomes: list[Any] = [None] * self.count
        own = (result, None if failure is None else str(failure) or type(failure).__name__)
        with torch.no_grad():
            distributed.all_gather_object(outcomes, own, group=self._group)
        if failure is not None:
            raise failure
        for rank, (_, reason) in enumerate(outcomes):
            if reason is not None:
                raise ConvscopeError(
                    f"process {rank} of {self.count} failed ({reason})",
                    "batches that every process can run",
                    "see that process's own error",
                )
        return [result for result, _ in outcomes]

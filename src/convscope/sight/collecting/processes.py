"""The processes that scan a data set together: ``torch.distributed``'s default group, or one alone.

With gloo what they tell one another goes through the CPU's memory, with NCCL through the device that the
model lies on; results themselves are on the CPU in either case.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from convscope.core.errors import ConvscopeError

_T = TypeVar("_T")


def home_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, with its number; the CPU if it has none."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@dataclass(frozen=True)
class Processes:
    """A group of processes; all of them make the same calls in the same order.

    Attributes:
        rank: of this one, from 0.
        size: how many there are.
        device: of this one's model; NCCL sends through it.

    Example:
        >>> Processes.current().each(lambda: 3)
        [3]
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @classmethod
    def current(cls, device: torch.device | None = None) -> "Processes":
        """Return the default group's processes where ``torch.distributed`` is in use, else this one."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(device=device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @classmethod
    def of(cls, model: nn.Module) -> "Processes":
        """Return the same, for work on the device where a model's first parameter or buffer lies."""
        return cls.current(home_of(model))

    def gather(self, value: _T) -> list[_T] | None:
        """Return every process's value, by rank, on rank 0, and None on the others; values are pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._sending():
            distributed.gather_object(value, values, dst=0)
        return values

    def broadcast(self, value: _T) -> _T:
        """Return rank 0's value; it is pickled."""
        if self.size == 1:
            return value
        values = [value]
        with self._sending():
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have come here and the group's threads are done with all that was sent.

        A program that ends without it right after another call may be aborted: gloo's threads let go of
        that call's tensors while Python is already gone.
        """
        if self.size > 1:
            with self._sending():
                distributed.barrier()

    def each(self, work: Callable[[], _T]) -> list[_T] | None:
        """Do some work on every process; return the results as :meth:`gather` does.

        Raises:
            ConvscopeError: the work failed on another process.
            Exception: the work failed here; the other processes are told.
        """
        result: _T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except Exception as error:
            if self.size == 1:
                raise
            failure = error
        reason = None if failure is None else str(failure) or type(failure).__name__
        outcomes = self.gather((result, reason))
        reasons = self.broadcast(None if outcomes is None else [reason for _, reason in outcomes])
        if failure is not None:
            raise failure
        for rank, told in enumerate(reasons or ()):
            if told is not None:
                raise ConvscopeError(
                    f"process {rank} of {self.size}, which failed ({told})",
                    "work that every process can do",
                    "see that process's own error",
                )
        return None if outcomes is None else [result for result, _ in outcomes]  # type: ignore[misc]

    def first(self, work: Callable[[], _T]) -> _T:
        """Do some work on rank 0 alone and return its result everywhere.

        Raises:
            ConvscopeError: the work failed on rank 0, and this is another one.
            Exception: the work failed here; the other processes are told.
        """
        results = self.each(lambda: work() if self.rank == 0 else None)
        return self.broadcast(results[0] if results else None)  # type: ignore[return-value]

    def _sending(self) -> AbstractContextManager[Any]:
        return (
            torch.cuda.device(self.device)
            if self.device is not None and self.device.type == "cuda"
            else nullcontext()
        )

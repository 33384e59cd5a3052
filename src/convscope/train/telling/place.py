"""Where a run takes place, and how much memory there is for one of its processes."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convscope.core.memory import available_memory

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Place:
    """Where a run takes place.

    Attributes:
        device: of one process.
        num_processes: that share every batch.
        num_sharing: of them, those that share the device's memory: all on one machine where the device is
            its CPU, one where each has a GPU.
    """

    device: torch.device
    num_processes: int = 1
    num_sharing: int = 1

    @classmethod
    def of(cls, accelerator: "Accelerator") -> "Place":
        """Return the place of a process that accelerate has joined to a run."""
        on_cpu = accelerator.device.type == "cpu"
        # torchrun and accelerate launch both say how many processes they started on this machine.
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if on_cpu else 1
        return cls(accelerator.device, accelerator.num_processes, max(1, sharing))

    def available_bytes(self, model: nn.Module) -> int | None:
        """Return what one process may take on the device, its network's own memory included.

        Returns:
            Bytes; None where the system doesn't say.
        """
        own = num_bytes(t for t in (*model.parameters(), *model.buffers()) if t.device == self.device)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return own + free + kept
        left = available_memory() if self.device.type == "cpu" else None
        return None if left is None else own + left // self.num_sharing


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors' elements, each tensor once.

    Example:
        >>> num_bytes([torch.zeros(3), torch.zeros(2, dtype=torch.float64)])
        28
    """
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())

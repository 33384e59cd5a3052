"""What PyTorch's recorded history of CUDA memory says: the peak, and who held scratch memory then.

``torch.cuda.memory._record_memory_history`` keeps every block that is handed out and taken back, with the
stack of calls; ``torch.cuda.memory._snapshot`` returns it. Replaying the events gives the sizes of blocks
(the history has only those of requests), and the stacks tell three kinds of scratch memory from tensors:

- ``cudnn``: taken inside cuDNN's operators, not for a tensor: the workspaces of convolutions;
- ``cublas``: the workspaces of matrix products, which stay;
- ``other``: the rest that is no tensor, such as what sorting needs.

A tensor's memory is recognised by the function that makes it (``at::detail::empty_cuda`` and its like), which
lies between the operator and the allocator on the stack.

Limits: PyTorch's default allocator settings, one stream; names of C++ functions must be in the stacks.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convscope.cost.allocator.caching import BLOCK_BYTES, round_size
from convscope.cost.allocator.segments import SMALL_BYTES

KINDS = ("tensor", "cudnn", "cublas", "other")
_TENSOR = re.compile(r"empty_|_empty|resize_bytes")
_CUDNN = re.compile(r"cudnn", re.IGNORECASE)
_CUBLAS = re.compile(r"cublas|cuda::blas", re.IGNORECASE)
_OURS = ("at::", "c10::")

Event = Mapping[str, Any]
"""An entry of a snapshot's ``device_traces``: ``action, addr, size, frames``."""


class UnreadableHistory(Exception):  # noqa: N818 - says why, to be noted beside the other figures
    """The history can't be read, for the reason given."""


@dataclass(frozen=True)
class History:
    """What the recorded events from some moment on amount to, in bytes.

    Attributes:
        allocated_peak_bytes: the most that was allocated at one time.
        without_workspace_peak_bytes: the same, leaving out the blocks of cuDNN.
        workspace_bytes: cuDNN's blocks at the peak.
        cublas_bytes: cuBLAS's blocks at the peak.
        other_scratch_bytes: other blocks at the peak that are no tensors.
        largest_workspace_bytes: the largest block of cuDNN at any time.
    """

    allocated_peak_bytes: int
    without_workspace_peak_bytes: int
    workspace_bytes: int
    cublas_bytes: int
    other_scratch_bytes: int
    largest_workspace_bytes: int


def read_history(segments: Iterable[Mapping[str, Any]], events: Sequence[Event], since: int = 0) -> History:
    """Return the peak of the recorded events, and what was scratch memory then.

    Args:
        segments: ``snapshot["segments"]`` of the moment at which recording began.
        events: ``snapshot["device_traces"][device]`` of the end.
        since: index of the event from which on the peak is looked for.

    Raises:
        UnreadableHistory: the events don't follow from the segments, or stacks name no functions.
    """
    _require_names(events)
    blocks = _Blocks(segments)
    peak, without_peak, largest = blocks.total, blocks.total, 0
    at_peak = dict(blocks.by_kind)
    for index, event in enumerate(events):
        if index == since:
            peak, without_peak, at_peak = blocks.total, blocks.without_workspace, dict(blocks.by_kind)
        taken = blocks.apply(index, event)
        if index < since or taken is None:
            continue
        if taken[0] == "cudnn":
            largest = max(largest, taken[1])
        without_peak = max(without_peak, blocks.without_workspace)
        if blocks.total > peak:
            peak, at_peak = blocks.total, dict(blocks.by_kind)
    return History(peak, without_peak, at_peak["cudnn"], at_peak["cublas"], at_peak["other"], largest)


def kind_of(frames: Iterable[Mapping[str, Any]]) -> str:
    """Return who took a block, by the functions on its stack: one of :data:`KINDS`.

    Example:
        >>> kind_of([{"name": "at::native::raw_cudnn_convolution_forward_out(at::Tensor const&)"}])
        'cudnn'
        >>> kind_of([{"name": "at::detail::empty_cuda()"}, {"name": "at::native::cudnn_convolution()"}])
        'tensor'
    """
    names = [frame.get("name", "") for frame in frames]
    native = [name for name in names if "::" in name]
    if not native or any(_TENSOR.search(name) for name in native):
        return "tensor"
    for kind, pattern in (("cublas", _CUBLAS), ("cudnn", _CUDNN)):
        if any(pattern.search(name) for name in native):
            return kind
    return "other"


class _Blocks:
    """The blocks of the process: in use by address, free by address, and where segments begin."""

    def __init__(self, segments: Iterable[Mapping[str, Any]]) -> None:
        self.by_kind = dict.fromkeys(KINDS, 0)
        self._used: dict[int, tuple[str, int]] = {}
        self._leaving: dict[int, int] = {}
        self._free: dict[int, int] = {}
        self._free_ends: dict[int, int] = {}
        self._begins: set[int] = set()
        for segment in segments:
            self._begins.add(segment["address"])
            for block in segment["blocks"]:
                self._standing(block)

    @property
    def total(self) -> int:
        """Bytes allocated."""
        return sum(self.by_kind.values())

    @property
    def without_workspace(self) -> int:
        """Bytes allocated, leaving out cuDNN's."""
        return self.total - self.by_kind["cudnn"]

    def apply(self, index: int, event: Event) -> tuple[str, int] | None:
        """Follow one event; return kind and size of the block that it handed out, if it did."""
        action, address, size = event["action"], event.get("addr", 0), event.get("size", 0)
        if action == "alloc":
            return self._take(index, event)
        if action == "free_requested":
            if address not in self._used:
                raise UnreadableHistory(f"event {index} frees a block that isn't in use")
            kind, self._leaving[address] = self._used.pop(address)
            self.by_kind[kind] -= self._leaving[address]
        elif action == "free_completed" and address in self._leaving:
            self._give(address, self._leaving.pop(address))
        elif action == "segment_alloc":
            self._begins.add(address)
            self._give(address, size)
        elif action == "segment_free":
            self._begins.discard(address)
            self._remove_free(address)
        elif action in ("segment_map", "segment_unmap"):
            raise UnreadableHistory("expandable segments are in use")
        return None

    def _standing(self, block: Mapping[str, Any]) -> None:
        address, size = block["address"], block["size"]
        if block["state"] == "inactive":
            self._free[address], self._free_ends[address + size] = size, address
        elif block["state"] == "active_allocated":
            kind = kind_of(block.get("frames", ()))
            self._used[address] = (kind, size)
            self.by_kind[kind] += size
        else:
            self._leaving[address] = size

    def _take(self, index: int, event: Event) -> tuple[str, int]:
        address, size = event["addr"], round_size(event["size"])
        if self._free.get(address, 0) < size:
            raise UnreadableHistory(f"event {index} takes a block where none is free")
        available = self._remove_free(address)
        left = available - size
        if left >= BLOCK_BYTES if size <= SMALL_BYTES else left > SMALL_BYTES:
            self._free[address + size], self._free_ends[address + available] = left, address + size
            available = size
        kind = kind_of(event.get("frames", ()))
        self._used[address] = (kind, available)
        self.by_kind[kind] += available
        return kind, available

    def _give(self, address: int, size: int) -> None:
        """Make a block free, together with free neighbours in its segment."""
        if address not in self._begins and address in self._free_ends:
            before = self._free_ends[address]
            size += self._remove_free(before)
            address = before
        if address + size in self._free and address + size not in self._begins:
            size += self._remove_free(address + size)
        self._free[address], self._free_ends[address + size] = size, address

    def _remove_free(self, address: int) -> int:
        size = self._free.pop(address, 0)
        self._free_ends.pop(address + size, None)
        return size


def _require_names(events: Sequence[Event]) -> None:
    taken = [event for event in events if event["action"] == "alloc"]
    named = any(
        frame.get("name", "").startswith(_OURS) for event in taken for frame in event.get("frames", ())
    )
    if taken and not named:
        raise UnreadableHistory("the stacks name no C++ functions")

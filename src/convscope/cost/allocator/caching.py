"""PyTorch's caching allocator for CUDA on plain integers: what a sequence of requests allocates and reserves.

The rules are those of PyTorch 2.13 (``c10/cuda/CUDACachingAllocator.cpp``, ``c10/core/AllocatorConfig.h``):

1. A request is rounded up to 512 B. Up to 1 MiB it is served from the small pool, above from the large one.
2. The smallest free block that fits is taken, of equal ones that at the lowest address.
3. Without one, a segment is taken from the device: 2 MiB in the small pool; in the large pool 20 MiB for
   requests below 10 MiB, else the request rounded up to 2 MiB.
4. A block is split if 512 B or more (small pool), or more than 1 MiB (large pool) would be left over.
   Otherwise all of it counts as allocated: ``allocated`` is the sum of blocks, not of requests.
5. A freed block merges with free neighbours in its segment. Segments stay reserved until the device is full:
   then those that are wholly free go back, and the request is tried once more.

Blocks of ``max_split_bytes`` and more are never split, serve only requests as large, and only if less than
20 MiB are left over; on a full device they go first, and no more of them than needed.

Limits: one stream, no private pools (CUDA graphs), no ``garbage_collection_threshold`` (which only works with
a memory fraction). ``capacity`` is where the device refuses; a memory fraction refuses slightly earlier
with expandable segments, since PyTorch compares it with the size that a fixed segment would have.
"""

from dataclasses import dataclass

from convscope.core.errors import ConvscopeError
from convscope.core.units import MIB
from convscope.cost.allocator.blocks import Block, DeviceMemory, Pool
from convscope.cost.allocator.segments import (
    MIN_OWN_SEGMENT_BYTES,
    SMALL_BYTES,
    ExpandableSegments,
    FixedSegments,
    Segments,
)

BLOCK_BYTES = 512  # kMinBlockSize: every block is a multiple of it


@dataclass(frozen=True)
class AllocatorConfig:
    """The keys of ``PYTORCH_ALLOC_CONF`` that change sizes, in bytes; the defaults are PyTorch's.

    Attributes:
        expandable_segments: ``expandable_segments``: segments grow by pages.
        large_segment_bytes: ``large_segment_size_mb``: segment for requests between 1 and 10 MiB.
        max_split_bytes: ``max_split_size_mb``: blocks as large aren't split; None: all are.
        roundup_power2_divisions: ``roundup_power2_divisions`` as one number: sizes above 512 B times it are
            rounded up to one of so many steps between powers of two; 0: off.
        max_non_split_rounding_bytes: ``max_non_split_rounding_mb``: an oversize block doesn't serve a
            request that leaves as much over; None: ``large_segment_bytes``.

    Raises:
        ConvscopeError: PyTorch would refuse a value.

    Example:
        >>> AllocatorConfig(max_split_bytes=128 * MIB).large_segment_bytes // MIB
        20
    """

    expandable_segments: bool = False
    large_segment_bytes: int = 20 * MIB
    max_split_bytes: int | None = None
    roundup_power2_divisions: int = 0
    max_non_split_rounding_bytes: int | None = None

    def __post_init__(self) -> None:
        large, divisions = self.large_segment_bytes, self.roundup_power2_divisions
        if large <= MIN_OWN_SEGMENT_BYTES or large % MIB:
            _refuse("large_segment_bytes", large, "whole MiB, more than 10")
        for name in ("max_split_bytes", "max_non_split_rounding_bytes"):
            value = getattr(self, name)
            if value is not None and value < large:
                _refuse(name, value, f"at least large_segment_bytes={large}")
        if divisions < 0 or divisions & (divisions - 1):
            _refuse("roundup_power2_divisions", divisions, "a power of two, or 0")


class DeviceFull(Exception):  # noqa: N818 - a state of the device, for the replay to report
    """The device can't serve a request, even after all that is free has gone back to it.

    Attributes:
        nbytes: the request.
        allocated: bytes in use at that moment.
        reserved: bytes that the process still holds.
    """

    def __init__(self, nbytes: int, allocated: int, reserved: int) -> None:
        super().__init__(nbytes, allocated, reserved)
        self.nbytes = nbytes
        self.allocated = allocated
        self.reserved = reserved


class CachingAllocator:
    """Allocates and frees as PyTorch does on a CUDA device, and keeps the same statistics.

    Args:
        config: settings of the allocator.
        capacity: bytes that the device can give to the process; None: without end.

    Attributes:
        allocated: bytes of the blocks in use, as ``torch.cuda.memory_allocated``.
        peak_allocated: highest ``allocated`` since the last reset.

    Example:
        >>> allocator = CachingAllocator()
        >>> tensor = allocator.allocate(49 * MIB)
        >>> allocator.allocated // MIB, allocator.reserved // MIB
        (50, 50)
        >>> allocator.free(tensor)
        >>> allocator.allocated // MIB, allocator.reserved // MIB, allocator.peak_allocated // MIB
        (0, 50, 50)
    """

    def __init__(self, config: AllocatorConfig | None = None, capacity: int | None = None) -> None:
        config = config or AllocatorConfig()
        self.allocated = 0
        self.peak_allocated = 0
        self._divisions = config.roundup_power2_divisions
        self._expandable = config.expandable_segments
        self._max_split = config.max_split_bytes
        self._max_left_over = config.max_non_split_rounding_bytes or config.large_segment_bytes
        self._device = DeviceMemory(capacity)
        self._small, self._large = Pool(is_small=True), Pool(is_small=False)
        kind = ExpandableSegments if config.expandable_segments else FixedSegments
        self._segments: Segments = kind(self._device, config.large_segment_bytes)
        self._live: dict[int, Block | None] = {}
        self._num_handles = 0

    @property
    def reserved(self) -> int:
        """Bytes taken from the device, as ``torch.cuda.memory_reserved``."""
        return self._device.reserved

    @property
    def peak_reserved(self) -> int:
        """Highest ``reserved`` since the last reset."""
        return self._device.peak

    def allocate(self, nbytes: int) -> int:
        """Return a handle of a new block; no bytes need no block.

        Raises:
            DeviceFull: there is no room under ``capacity``; what was wholly free has gone back by then.
        """
        self._num_handles = handle = self._num_handles + 1
        if nbytes == 0:
            self._live[handle] = None
            return handle
        size = round_size(nbytes, self._divisions)
        pool = self._small if size <= SMALL_BYTES else self._large
        block = self._best_fit(pool, size) or self._new(pool, size)
        if block is None:
            raise DeviceFull(nbytes, self.allocated, self._device.reserved)
        left_over = block.size - size
        if left_over and self._is_split(pool, size, left_over):
            pool.add(block.cut(size))
        block.free = False
        self._live[handle] = block
        self.allocated = allocated = self.allocated + block.size
        if allocated > self.peak_allocated:
            self.peak_allocated = allocated
        return handle

    def free(self, handle: int) -> None:
        """Give a block back to its pool.

        Raises:
            KeyError: the handle isn't one in use.
        """
        block = self._live.pop(handle)
        if block is None:
            return
        self.allocated -= block.size
        block.pool.merge(block)
        block.free = True
        block.pool.add(block)

    def block_bytes(self, handle: int) -> int:
        """Return what ``allocated`` counts for a handle, unsplit remainders included.

        Raises:
            KeyError: the handle isn't one in use.
        """
        block = self._live[handle]
        return 0 if block is None else block.size

    def reset_peaks(self) -> None:
        """Set both peaks to what is there now, as ``torch.cuda.reset_peak_memory_stats``."""
        self.peak_allocated = self.allocated
        self._device.peak = self._device.reserved

    def release_cached(self) -> None:
        """Give what is wholly free back to the device, as ``torch.cuda.empty_cache``."""
        self._segments.release(self._large)
        self._segments.release(self._small)

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        index = pool.index_of_fit(size)
        if index == len(pool.keys):
            return None
        block = pool.at(index)
        if self._expandable:
            block = _least_growing(pool, index)
        if self._max_split is not None:
            if size < self._max_split <= block.size:
                return None
            if size >= self._max_split and block.size >= size + self._max_left_over:
                return None
        pool.remove(block)
        return block

    def _new(self, pool: Pool, size: int) -> Block | None:
        """New memory; on a full device first oversize blocks go back, then all that is wholly free."""
        block, limit = self._segments.grow(pool, size), self._max_split
        if block is None and limit is not None and self._segments.release_oversize(pool, size, limit):
            block = self._segments.grow(pool, size)
        if block is None:
            self.release_cached()
            block = self._segments.grow(pool, size)
        return block

    def _is_split(self, pool: Pool, size: int, left_over: int) -> bool:
        if pool.is_small or self._expandable:
            return left_over >= BLOCK_BYTES
        return left_over > SMALL_BYTES and (self._max_split is None or size < self._max_split)


def round_size(nbytes: int, divisions: int = 0) -> int:
    """Return the size of the block that a request of 1 B or more asks for.

    Args:
        nbytes: the request.
        divisions: steps between two powers of two for requests above 512 B times it; 0 or 1: none.

    Example:
        >>> round_size(1), round_size(513), round_size(1200 * 1024, 4) // 1024
        (512, 1024, 1280)
    """
    if divisions > 1 and nbytes > BLOCK_BYTES * divisions:
        step = (1 << (nbytes.bit_length() - 1)) // divisions
        return -(-nbytes // step) * step
    return -(-nbytes // BLOCK_BYTES) * BLOCK_BYTES


def _least_growing(pool: Pool, index: int) -> Block:
    """From the best fit on, step to larger blocks while they count as smaller.

    A block at the end of the mapped pages counts as large as it could grow.
    """
    block = pool.at(index)
    while index + 1 < len(pool.keys):
        index += 1
        following = pool.at(index)
        if _growable_bytes(following) >= _growable_bytes(block):
            break
        block = following
    return block


def _growable_bytes(block: Block) -> int:
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)


def _refuse(name: str, value: int, expected: str) -> None:
    raise ConvscopeError(f"AllocatorConfig({name}={value})", expected, "change it, as PyTorch refuses it too")

"""Where a pool's memory comes from, and what goes back to the device when it is full.

Two ways: a segment of fixed size for each request that no free block fits, or, with
``expandable_segments:True``, one long range of addresses per pool which grows and shrinks by pages.
Source: PyTorch 2.13, ``c10/cuda/CUDACachingAllocator.cpp`` and ``c10/core/AllocatorConfig.h``.
"""

from typing import Protocol

from convscope.core.units import MIB, TIB
from convscope.cost.allocator.blocks import Block, DeviceMemory, Pool

SMALL_BYTES = MIB  # kSmallSize: the largest request that the small pool serves
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
MIN_OWN_SEGMENT_BYTES = 10 * MIB  # kMinLargeAlloc: from here on a request gets a segment of its own
SEGMENT_ROUNDING_BYTES = 2 * MIB  # kRoundLarge
_ENDLESS_BYTES = 8 * TIB  # address range of an expandable segment on a device without end


class Segments(Protocol):
    """Takes memory from the device for a pool, and gives it back."""

    def grow(self, pool: Pool, size: int) -> Block | None:
        """Return a block of at least ``size`` bytes, in no pool; None if the device has no room."""

    def release_oversize(self, pool: Pool, size: int, max_split_bytes: int) -> bool:
        """Give back just enough oversize free blocks for ``size`` bytes; False if there aren't enough."""

    def release(self, pool: Pool) -> None:
        """Give back everything that is wholly free."""


class FixedSegments:
    """Segments of fixed size, the default: 2 MiB, 20 MiB, or the request rounded up to 2 MiB."""

    def __init__(self, device: DeviceMemory, large_segment_bytes: int) -> None:
        self._device = device
        self._large_segment_bytes = large_segment_bytes

    def segment_bytes(self, size: int) -> int:
        """Return the size of the segment that is taken for a rounded request."""
        if size <= SMALL_BYTES:
            return SMALL_SEGMENT_BYTES
        if size < MIN_OWN_SEGMENT_BYTES:
            return self._large_segment_bytes
        return -(-size // SEGMENT_ROUNDING_BYTES) * SEGMENT_ROUNDING_BYTES

    def grow(self, pool: Pool, size: int) -> Block | None:
        """Take a new segment."""
        nbytes = self.segment_bytes(size)
        if not self._device.take(nbytes):
            return None
        return Block(self._device.new_address(nbytes), nbytes, pool)

    def release_oversize(self, pool: Pool, size: int, max_split_bytes: int) -> bool:
        """Give back the best fit, or, where no block is large enough, the largest ones one by one."""
        wanted = max(size, max_split_bytes)
        index = pool.index_of_fit(wanted)
        if index < len(pool.keys):
            self._release_segment(pool, pool.at(index))
            return True
        released = 0
        while pool.keys and released < wanted and (block := pool.at(-1)).size >= max_split_bytes:
            released += block.size
            self._release_segment(pool, block)
        return released >= wanted

    def release(self, pool: Pool) -> None:
        """Give back the segments that are one free block."""
        for block in pool.free_blocks():
            if block.is_whole_segment:
                self._release_segment(pool, block)

    def _release_segment(self, pool: Pool, block: Block) -> None:
        pool.remove(block)
        self._device.give_back(block.size)


class ExpandableSegments:
    """Ranges of addresses that are backed by pages where they are used: 2 MiB (small pool) or 20 MiB.

    A range spans 9/8 of the device's memory. It grows at the lowest address with enough room, and shrinks,
    when the device is full, by the pages that lie wholly in free blocks.
    """

    def __init__(self, device: DeviceMemory, large_segment_bytes: int) -> None:
        self._device = device
        self._large_page_bytes = large_segment_bytes

    def grow(self, pool: Pool, size: int) -> Block | None:
        """Map pages after a free block, or where no memory is yet, until ``size`` bytes lie together."""
        block = self._room(pool, size)
        if not block.mapped and not self._map(pool, block, min(block.size, size)):
            return None
        while block.size < size:
            following = block.next
            if following is None or not self._map(pool, following, min(size - block.size, following.size)):
                return None
            block = following  # which took over the block before it
        pool.remove(block)
        return block

    def release_oversize(self, pool: Pool, size: int, max_split_bytes: int) -> bool:  # noqa: ARG002
        """Nothing: oversize blocks of expandable segments aren't given back one by one."""
        return False

    def release(self, pool: Pool) -> None:
        """Unmap the whole pages in free blocks; a range without any page goes altogether."""
        for block in pool.free_blocks():
            self._unmap(pool, block)

    def _page_bytes(self, pool: Pool) -> int:
        return SMALL_SEGMENT_BYTES if pool.is_small else self._large_page_bytes

    def _room(self, pool: Pool, size: int) -> Block:
        """The lowest block from which ``size`` free or unmapped bytes follow, or a new range."""
        for unmapped in pool.unmapped:
            start = unmapped.prev if unmapped.prev is not None and unmapped.prev.free else unmapped
            if _free_room(start, size) >= size:
                return start
        return self._new_range(pool, size)

    def _new_range(self, pool: Pool, size: int) -> Block:
        page, capacity = self._page_bytes(pool), self._device.capacity
        span = max(_ENDLESS_BYTES, size) if capacity is None else capacity + capacity // 8
        span = -(-span // page) * page
        block = Block(self._device.new_address(span, page), span, pool, mapped=False)
        pool.add_unmapped(block)
        return block

    def _map(self, pool: Pool, block: Block, nbytes: int) -> bool:
        page = self._page_bytes(pool)
        nbytes = -(-nbytes // page) * page
        if not self._device.take(nbytes):
            return False
        pool.unmapped.remove(block)
        if nbytes < block.size:
            pool.add_unmapped(block.cut(nbytes))
        block.mapped = block.free = True
        pool.merge(block)
        pool.add(block)
        return True

    def _unmap(self, pool: Pool, block: Block) -> None:
        page = self._page_bytes(pool)
        begin = -(-block.address // page) * page
        end = (block.address + block.size) // page * page
        if begin >= end:
            return
        pool.remove(block)
        if block.address + block.size > end:
            pool.add(block.cut(end - block.address))
        if block.address < begin:
            rest = block.cut(begin - block.address)
            pool.add(block)
            block = rest
        block.mapped = block.free = False
        self._device.give_back(end - begin)
        self._merge_unmapped(pool, block)
        if not block.is_whole_segment:
            pool.add_unmapped(block)

    def _merge_unmapped(self, pool: Pool, block: Block) -> None:
        previous, following = block.prev, block.next
        if previous is not None and not previous.mapped:
            pool.unmapped.remove(previous)
            block.absorb_previous(previous)
        if following is not None and not following.mapped:
            pool.unmapped.remove(following)
            block.absorb_next(following)


def _free_room(block: Block | None, enough: int) -> int:
    """Bytes of free and unmapped addresses from a block on, counted no further than ``enough``."""
    room = 0
    while room < enough and block is not None and (block.free or not block.mapped):
        room += block.size
        block = block.next
    return room

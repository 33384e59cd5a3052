"""Blocks of device memory, the free ones of a pool in the order of best fit, and the device they come from.

Addresses are made up: a new segment lies above all earlier ones. They matter only where two free blocks are
of one size, of which PyTorch takes the one at the lower address.
"""

from bisect import bisect_left, insort
from operator import attrgetter

_ADDRESS_BITS = 52
_address_of = attrgetter("address")


class Block:
    """A stretch of one segment.

    Attributes:
        address: first byte.
        size: bytes.
        pool: whose segment it lies in.
        free: backed by memory and not handed out.
        mapped: backed by memory; False only in expandable segments.
        prev: the block before it in its segment.
        next: the block after it.
    """

    __slots__ = ("address", "free", "mapped", "next", "pool", "prev", "size")

    def __init__(self, address: int, size: int, pool: "Pool", mapped: bool = True) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.free = mapped
        self.mapped = mapped
        self.prev: Block | None = None
        self.next: Block | None = None

    def cut(self, size: int) -> "Block":
        """Keep the first ``size`` bytes; return the rest as a new block after this one, in no pool yet."""
        rest = Block(self.address + size, self.size - size, self.pool, self.mapped)
        rest.prev, rest.next = self, self.next
        if rest.next is not None:
            rest.next.prev = rest
        self.next = rest
        self.size = size
        return rest

    def absorb_previous(self, previous: "Block") -> None:
        """Take over the block before this one."""
        self.address = previous.address
        self.size += previous.size
        self.prev = previous.prev
        if self.prev is not None:
            self.prev.next = self

    def absorb_next(self, following: "Block") -> None:
        """Take over the block after this one."""
        self.size += following.size
        self.next = following.next
        if self.next is not None:
            self.next.prev = self

    @property
    def is_whole_segment(self) -> bool:
        """No neighbours: nothing of its segment lies outside it."""
        return self.prev is None and self.next is None


class Pool:
    """Blocks of one kind: ``free`` ones by size and then by address, and ``unmapped`` ones by address."""

    __slots__ = ("_by_key", "is_small", "keys", "unmapped")

    def __init__(self, is_small: bool) -> None:
        self.is_small = is_small
        self.keys: list[int] = []
        self._by_key: dict[int, Block] = {}
        self.unmapped: list[Block] = []

    def add(self, block: Block) -> None:
        """Put a free block into its place."""
        key = block.size << _ADDRESS_BITS | block.address
        insort(self.keys, key)
        self._by_key[key] = block

    def remove(self, block: Block) -> None:
        """Take a free block out."""
        key = block.size << _ADDRESS_BITS | block.address
        del self.keys[bisect_left(self.keys, key)]
        del self._by_key[key]

    def index_of_fit(self, size: int) -> int:
        """Return the place of the smallest free block of at least ``size`` bytes; the end: none."""
        return bisect_left(self.keys, size << _ADDRESS_BITS)

    def at(self, index: int) -> Block:
        """Return the free block at a place."""
        return self._by_key[self.keys[index]]

    def free_blocks(self) -> list[Block]:
        """Return the free blocks, smallest first."""
        return [self._by_key[key] for key in self.keys]

    def merge(self, block: Block) -> None:
        """Join a block that isn't in the pool with free neighbours, which leave the pool."""
        previous, following = block.prev, block.next
        if previous is not None and previous.free:
            self.remove(previous)
            block.absorb_previous(previous)
        if following is not None and following.free:
            self.remove(following)
            block.absorb_next(following)

    def add_unmapped(self, block: Block) -> None:
        """Put a block without memory into its place."""
        insort(self.unmapped, block, key=_address_of)


class DeviceMemory:
    """What the process has taken from the device, and how much there is; None: without end."""

    __slots__ = ("_next_address", "capacity", "peak", "reserved")

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.reserved = 0
        self.peak = 0
        self._next_address = 0

    def take(self, nbytes: int) -> bool:
        """Take bytes from the device; False, with nothing taken, if there aren't as many."""
        if self.capacity is not None and self.reserved + nbytes > self.capacity:
            return False
        self.reserved += nbytes
        self.peak = max(self.peak, self.reserved)
        return True

    def give_back(self, nbytes: int) -> None:
        """Give bytes back to the device."""
        self.reserved -= nbytes

    def new_address(self, span: int, alignment: int = 1) -> int:
        """Return the first address of a stretch that nothing else has."""
        address = -(-self._next_address // alignment) * alignment
        self._next_address = address + span
        return address

"""The allocator's replica against a naive implementation of the same rules, on random sequences.

The naive implementation knows no blocks: it keeps which bytes of each range of addresses are in use and which
pages are mapped, and finds free stretches by scanning.
"""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.cost.allocator.caching import AllocatorConfig, CachingAllocator, DeviceFull

MIB, GIB = 2**20, 2**30


class _Range:
    """Addresses from ``base`` on, of which some pages are mapped and some stretches in use."""

    def __init__(self, base, span, page, small):
        self.base, self.span, self.page, self.small = base, span, page, small
        self.mapped: set[int] = set()
        self.used: dict[int, int] = {}

    def stretches(self):
        """(address, size, kind) of maximal stretches, by address; kind: used, free or unmapped."""
        edges = {self.base, self.base + self.span}
        for address, size in self.used.items():
            edges |= {address, address + size}
        for page in self.mapped:
            edges |= {self.base + page * self.page, self.base + (page + 1) * self.page}
        edges = sorted(edges)
        found = []
        for begin, end in pairwise(edges):
            kind = self._kind(begin)
            same = kind != "used" and found and found[-1][2] == kind
            if same or (kind == "used" and begin not in self.used):
                found[-1] = (found[-1][0], found[-1][1] + end - begin, kind)
            else:
                found.append((begin, end - begin, kind))
        return found

    def _kind(self, address):
        if any(begin <= address < begin + size for begin, size in self.used.items()):
            return "used"
        return "free" if (address - self.base) // self.page in self.mapped else "unmapped"


class _Naive:
    """The same rules, by scanning."""

    def __init__(self, config, capacity):
        self.config, self.capacity = config, capacity
        self.ranges: list[_Range] = []
        self.top = 0
        self.peak_allocated = self.peak_reserved = 0

    @property
    def allocated(self):
        return sum(sum(r.used.values()) for r in self.ranges)

    @property
    def reserved(self):
        return sum(len(r.mapped) * r.page for r in self.ranges)

    def rounded(self, nbytes):
        divisions = self.config.roundup_power2_divisions
        if divisions > 1 and nbytes > 512 * divisions:
            floor = 1
            while floor * 2 <= nbytes:
                floor *= 2
            return next(
                floor + floor * j // divisions
                for j in range(divisions + 1)
                if floor + floor * j // divisions >= nbytes
            )
        return (nbytes + 511) // 512 * 512

    def allocate(self, nbytes):
        """Return (address, charged bytes), or None on a full device."""
        size = self.rounded(nbytes)
        small = size <= MIB
        place = self.best_fit(size, small)
        if place is None:
            place = self.grow(size, small)
        if place is None and self.config.max_split_bytes and self.release_oversize(size, small):
            place = self.grow(size, small)
        if place is None:
            self.release()
            place = self.grow(size, small)
        if place is None:
            return None
        where, address, available = place
        left = available - size
        limit = self.config.max_split_bytes or float("inf")
        split = left >= 512 if small or self.config.expandable_segments else left > MIB and size < limit
        where.used[address] = size if split else available
        self.note()
        return address, where.used[address]

    def free(self, address):
        for where in self.ranges:
            where.used.pop(address, None)

    def note(self):
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def free_stretches(self, small):
        """(size, address, range, size that it can grow to)."""
        found = []
        for where in (r for r in self.ranges if r.small == small):
            stretches = where.stretches()
            for (address, size, kind), after in zip(stretches, [*stretches[1:], None], strict=True):
                if kind == "free":
                    grown = after[1] if after and after[2] == "unmapped" else 0
                    found.append((size, address, where, size + grown))
        return sorted(found, key=lambda item: item[:2])

    def best_fit(self, size, small):
        fitting = [item for item in self.free_stretches(small) if item[0] >= size]
        if not fitting:
            return None
        chosen = 0
        while (
            self.config.expandable_segments
            and chosen + 1 < len(fitting)
            and fitting[chosen + 1][3] < fitting[chosen][3]
        ):
            chosen += 1
        available, address, where, _ = fitting[chosen]
        limit = self.config.max_split_bytes
        if limit and size < limit <= available:
            return None
        left_over = self.config.max_non_split_rounding_bytes or self.config.large_segment_bytes
        if limit and size >= limit and available - size >= left_over:
            return None
        return where, address, available

    def has_room(self, nbytes):
        return self.capacity is None or self.reserved + nbytes <= self.capacity

    def grow(self, size, small):
        if self.config.expandable_segments:
            return self.expand(size, small)
        large = self.config.large_segment_bytes
        own = (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
        nbytes = 2 * MIB if small else large if size < 10 * MIB else own
        if not self.has_room(nbytes):
            return None
        where = _Range(self.top, nbytes, nbytes, small)
        where.mapped.add(0)
        self.top += nbytes
        self.ranges.append(where)
        self.note()
        return where, where.base, nbytes

    def expand(self, size, small):
        where, start = self.room(size, small)
        begin = start
        while begin < start + size:
            kind = where._kind(begin)
            stretch = next(s for s in where.stretches() if s[0] <= begin < s[0] + s[1])
            if kind == "free":
                begin = stretch[0] + stretch[1]
                continue
            pages = -(-min(start + size - begin, stretch[1]) // where.page)
            if not self.has_room(pages * where.page):
                return None
            first = (begin - where.base) // where.page
            where.mapped |= set(range(first, first + pages))
            self.note()
        return next((where, s[0], s[1]) for s in where.stretches() if s[0] == start)

    def room(self, size, small):
        for where in (r for r in self.ranges if r.small == small):
            stretches = where.stretches()
            for index, (_, _, kind) in enumerate(stretches):
                if kind != "unmapped":
                    continue
                first = index - 1 if index and stretches[index - 1][2] == "free" else index
                room = 0
                for _, nbytes, other in stretches[first:]:
                    if other == "used":
                        break
                    room += nbytes
                if room >= size:
                    return where, stretches[first][0]
        page = 2 * MIB if small else self.config.large_segment_bytes
        span = 1024 * GIB if self.capacity is None else self.capacity + self.capacity // 8
        span = max(span, -(-size // page) * page) if self.capacity is None else span
        where = _Range(-(-self.top // page) * page, -(-span // page) * page, page, small)
        self.top = where.base + where.span
        self.ranges.append(where)
        return where, where.base

    def release_oversize(self, size, small):
        if self.config.expandable_segments:
            return False
        limit = self.config.max_split_bytes
        wanted = max(size, limit)
        free = self.free_stretches(small)
        for nbytes, _, where, _ in free:
            if nbytes >= wanted:
                self.ranges.remove(where)
                return True
        released = 0
        for nbytes, _, where, _ in reversed(free):
            if released >= wanted or nbytes < limit:
                break
            released += nbytes
            self.ranges.remove(where)
        return released >= wanted

    def release(self):
        for where in self.ranges:
            for address, size, kind in where.stretches():
                if kind == "free":
                    first = -(-(address - where.base) // where.page)
                    last = (address + size - where.base) // where.page
                    where.mapped -= set(range(first, last))
        self.ranges = [r for r in self.ranges if r.mapped]


_SIZES = st.one_of(
    st.integers(1, 3000),
    st.integers(1, MIB + 600),
    st.integers(MIB - 1024, 12 * MIB),
    st.integers(1, 70 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 512, 10 * MIB, 19 * MIB, 20 * MIB, 32 * MIB]),
)
_CONFIGS = st.builds(
    AllocatorConfig,
    expandable_segments=st.booleans(),
    large_segment_bytes=st.sampled_from([20 * MIB, 11 * MIB, 32 * MIB]),
    max_split_bytes=st.sampled_from([None, None, 32 * MIB, 45 * MIB]),
    roundup_power2_divisions=st.sampled_from([0, 0, 1, 2, 8]),
    max_non_split_rounding_bytes=st.sampled_from([None, 32 * MIB]),
)
_EVENTS = st.lists(st.tuples(st.booleans(), _SIZES, st.integers(0, 10**6)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(config=_CONFIGS, capacity=st.sampled_from([None, 64 * MIB, 150 * MIB, 333 * MIB]), events=_EVENTS)
def test_agrees_with_the_naive_implementation(config, capacity, events):
    allocator, naive = CachingAllocator(config, capacity), _Naive(config, capacity)
    live = []
    for frees, nbytes, which in events:
        if frees and live:
            handle, address = live.pop(which % len(live))
            allocator.free(handle)
            naive.free(address)
        else:
            place = naive.allocate(nbytes)
            if place is None:
                with pytest.raises(DeviceFull):
                    allocator.allocate(nbytes)
            else:
                handle = allocator.allocate(nbytes)
                assert allocator.block_bytes(handle) == place[1]
                live.append((handle, place[0]))
        assert (allocator.allocated, allocator.reserved) == (naive.allocated, naive.reserved)
        assert (allocator.peak_allocated, allocator.peak_reserved) == (
            naive.peak_allocated,
            naive.peak_reserved,
        )

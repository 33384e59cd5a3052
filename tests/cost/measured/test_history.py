"""Recorded histories of memory, made by hand in the shape that ``torch.cuda.memory._snapshot`` documents."""

import random

import pytest

from convscope.cost.allocator.caching import CachingAllocator
from convscope.cost.measured.history import UnreadableHistory, kind_of, read_history

MIB = 2**20
SMALL, LARGE, OWN = 0x7F00_0000_0000, 0x7F00_0100_0000, 0x7F00_0800_0000


def _frames(*names):
    return [{"filename": "??", "line": 0, "name": name} for name in names]


ALLOCATE = "c10::cuda::CUDACachingAllocator::Native::NativeCachingAllocator::allocate(unsigned long)"
EMPTY = ("at::detail::empty_generic(c10::ArrayRef<long>)", "at::detail::empty_cuda(c10::ArrayRef<long>)")
TENSOR = _frames(ALLOCATE, *EMPTY, "at::native::relu(at::Tensor const&)", "forward")
OUTPUT = _frames(ALLOCATE, *EMPTY, "at::native::cudnn_convolution(at::Tensor const&)", "forward")
CUDNN = _frames(
    ALLOCATE, "??", "at::native::raw_cudnn_convolution_forward_out(at::Tensor const&)", "_conv_forward"
)
CUBLAS = _frames(ALLOCATE, "at::cuda::getCurrentCUDABlasHandle()", "at::cuda::blas::gemm<float>(char)")
SORTING = _frames(ALLOCATE, "at::cuda::cub::detail::radix_sort_pairs_impl(void*)")


def _event(action, addr, size, frames=()):
    return {"action": action, "addr": addr, "size": size, "frames": list(frames), "stream": 0}


def _freed(addr, size):
    return [_event("free_requested", addr, size), _event("free_completed", addr, size)]


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (TENSOR, "tensor"),
        (OUTPUT, "tensor"),
        (CUDNN, "cudnn"),
        (CUBLAS, "cublas"),
        (SORTING, "other"),
        ((), "tensor"),
        (_frames("forward", "train"), "tensor"),  # Python functions only: nothing is known
        (_frames(ALLOCATE, "at::native::resize_bytes_cuda(c10::StorageImpl*, unsigned long)"), "tensor"),
    ],
)
def test_kinds_of_blocks(frames, kind):
    assert kind_of(frames) == kind


def _step():
    """What stands first: 512 B, 4 MiB, cuBLAS's 8,519,680 B. Then a step.

    49 MiB (50 are counted) for a tensor, with 3 MiB of workspace beside it, which are given back; then
    2 MiB of workspace while 4 MiB and 100 B more (512) are in use.
    """
    segments = [
        {
            "address": SMALL,
            "total_size": 2 * MIB,
            "blocks": [
                {"address": SMALL, "size": 512, "state": "active_allocated", "frames": []},
                {"address": SMALL + 512, "size": 2 * MIB - 512, "state": "inactive", "frames": []},
            ],
        }
    ]
    before = [
        _event("segment_alloc", LARGE, 20 * MIB),
        _event("alloc", LARGE, 4 * MIB, TENSOR),
        _event("alloc", LARGE + 4 * MIB, 8_519_680, CUBLAS),
        _event("snapshot", 0, 0),
    ]
    rest = LARGE + 4 * MIB + 8_519_680
    step = [
        _event("segment_alloc", OWN, 50 * MIB),
        _event("alloc", OWN, 49 * MIB, OUTPUT),
        _event("alloc", rest, 3 * MIB, CUDNN),
        *_freed(rest, 3 * MIB),
        _event("alloc", rest, 4 * MIB, TENSOR),
        _event("alloc", SMALL + 512, 100, SORTING),
        *_freed(OWN, 49 * MIB),
        _event("alloc", OWN, 2 * MIB, CUDNN),
        *_freed(OWN, 2 * MIB),
    ]
    return segments, before, step


def test_peak_of_a_step_by_hand():
    segments, before, step = _step()
    found = read_history(segments, before + step, since=len(before))
    standing = 512 + 4 * MIB + 8_519_680
    assert found.allocated_peak_bytes == standing + 50 * MIB + 4 * MIB + 512
    assert found.without_workspace_peak_bytes == found.allocated_peak_bytes
    assert (found.workspace_bytes, found.cublas_bytes, found.other_scratch_bytes) == (0, 8_519_680, 512)
    assert found.largest_workspace_bytes == 3 * MIB


def test_a_peak_that_workspace_makes():
    """Without the later tensor of 4 MiB the peak is at the 3 MiB of workspace."""
    segments, before, step = _step()
    found = read_history(segments, before + step[:5], since=len(before))
    standing = 512 + 4 * MIB + 8_519_680
    assert found.allocated_peak_bytes == standing + 53 * MIB
    assert found.without_workspace_peak_bytes == standing + 50 * MIB
    assert found.workspace_bytes == 3 * MIB


def test_what_was_before_does_not_count():
    segments, before, step = _step()
    events = before + step + [_event("snapshot", 0, 0), *_freed(LARGE, 4 * MIB)]
    found = read_history(segments, events, since=len(before) + len(step))
    later = 8_519_680 + 4 * MIB + 2 * 512
    assert found.allocated_peak_bytes == later + 4 * MIB
    assert found.largest_workspace_bytes == 0


def test_freed_neighbours_serve_one_larger_request():
    """1 MiB + 512 B each, side by side: freed, they serve 20 MiB with what follows; segments stay apart."""
    size = MIB + 512
    events = [
        _event("segment_alloc", LARGE, 20 * MIB),
        _event("segment_alloc", LARGE + 20 * MIB, 20 * MIB),
        _event("alloc", LARGE, size, TENSOR),
        _event("alloc", LARGE + size, size, TENSOR),
        *_freed(LARGE, size),
        *_freed(LARGE + size, size),
        _event("alloc", LARGE, 20 * MIB, TENSOR),
    ]
    assert read_history([], events).allocated_peak_bytes == 20 * MIB
    with pytest.raises(UnreadableHistory, match="none is free"):
        read_history([], [*events[:-1], _event("alloc", LARGE, 21 * MIB, TENSOR)])


def test_segments_that_went_back_are_gone():
    events = [
        _event("segment_alloc", OWN, 30 * MIB),
        _event("alloc", OWN, 30 * MIB, TENSOR),
        *_freed(OWN, 30 * MIB),
        _event("segment_free", OWN, 30 * MIB),
        _event("alloc", OWN, 30 * MIB, TENSOR),
    ]
    with pytest.raises(UnreadableHistory, match="event 5 takes a block where none is free"):
        read_history([], events)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (_event("free_requested", 5, 512), "event 0 frees a block that isn't in use"),
        (_event("segment_map", OWN, 20 * MIB), "expandable segments"),
        (_event("alloc", OWN, 512, _frames("forward")), "name no C"),
    ],
)
def test_histories_that_say_nothing(event, why):
    with pytest.raises(UnreadableHistory, match=why):
        read_history([], [event])


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_random_histories_are_the_allocators(seed):
    """The allocator's replica makes the events; the history knows their addresses and requests only."""
    allocator, draw, live, events = CachingAllocator(), random.Random(seed), [], []
    for _ in range(400):
        if live and draw.random() < 0.48:
            handle, address, size = live.pop(draw.randrange(len(live)))
            allocator.free(handle)
            events += _freed(address, size)
        else:
            size = draw.choice((draw.randint(1, 2000), draw.randint(1, MIB), draw.randint(1, 40 * MIB)))
            begin, reserved = allocator._device._next_address, allocator.reserved
            handle = allocator.allocate(size)
            if allocator.reserved > reserved:
                events.append(_event("segment_alloc", begin, allocator.reserved - reserved))
            address = allocator._live[handle].address
            events.append(_event("alloc", address, size, TENSOR))
            live.append((handle, address, size))
    assert read_history([], events).allocated_peak_bytes == allocator.peak_allocated

import gc
import threading

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.sight.sources.batches import numbered_batches


class Numbers:
    """Image i is full of i; those of ``broken`` can't be read."""

    title = "numbers"

    def __init__(self, count, broken=(), threads=0):
        self.count, self.broken, self.threads, self.read_so_far = count, set(broken), threads, []

    def __len__(self):
        return self.count

    def read(self, index):
        self.read_so_far.append(index)
        if index in self.broken:
            raise OSError(f"broken {index}")
        return torch.full((1, 2, 3), float(index))

    def name(self, index):
        return f"{index}.png"


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (1, 4), (5, 1)])
def test_damage_shortens_its_own_batch_and_moves_no_border(count, size, threads):
    for broken in ([], [0], [1, 4], range(0, count, 2), range(size)):
        met = {}
        images = Numbers(count, [b for b in broken if count > size], threads)
        found = {tuple(i): b[:, 0, 0, 0].tolist() for i, b in numbered_batches(images, None, size, met)}
        chunks = [range(count)[start : start + size] for start in range(0, count, size)]
        kept = [tuple(i for i in chunk if i not in images.broken) for chunk in chunks]
        assert found == {chunk: list(map(float, chunk)) for chunk in kept if chunk}
        assert {index: damage.path for index, damage in met.items()} == {
            index: f"{index}.png" for index in images.broken if index < count
        }


def test_whole_batches_of_a_choice_are_the_batches_of_all():
    images = Numbers(10)
    every = [indices for indices, _ in numbered_batches(images, None, 3, {})]
    for wanted in (range(3, 9), {9, 3, 5, 4}, range(6, 10)):
        assert [i for i, _ in numbered_batches(images, wanted, 3, {})] == [c for c in every if c[0] in wanted]


def test_unless_nothing_is_left_at_all():
    images = Numbers(4, range(4), threads=2)
    with pytest.raises(
        ConvscopeError, match=r"numbers: none of 4 can be read \(0.png: OSError: broken 0; .*and 1 more"
    ):
        list(numbered_batches(images, None, 3, {}))
    assert list(numbered_batches(images, [1, 2], 3, {})) == []  # a process's share; others may have more
    with pytest.raises(ConvscopeError, match="no images"):
        list(numbered_batches(Numbers(0), None, 3, {}))


def test_a_bounded_number_is_read_ahead_and_none_after_the_end():
    images = Numbers(1000, threads=2)
    reading = numbered_batches(images, None, 4, {})
    next(reading)
    assert len(images.read_so_far) <= 4 + 2 * 4
    del reading
    gc.collect()
    assert not any(thread.name.startswith("convscope-read") for thread in threading.enumerate())


def test_what_is_no_image_is_an_error_at_once():
    class Wrong(Numbers):
        def read(self, index):
            raise ConvscopeError("image 0 is a str", "a tensor", "convert it")

    with pytest.raises(ConvscopeError, match="is a str"):
        list(numbered_batches(Wrong(4, threads=2), None, 2, {}))

"""Two and three processes against one: the same bits, and failures that all of them hear of."""

import pytest

from convscope.sight.collecting.processes import Processes
from sight.collecting.brute import bits
from sight.collecting.scanning import in_processes, scanned, together
from sight.collecting.test_resumption import broken_off, states


def all_bits(found):
    return {address: bits(tally) for address, tally in found.tallies.items()}


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_are_one(tmp_path, count):
    broken_off(tmp_path / "states", 5)  # one process began
    founds = in_processes(count, together, tmp_path)
    expected = all_bits(scanned())
    for found in founds:
        for name, num_resumed in {"plain": 0, "resumed": 20, "again": 83}.items():
            assert all_bits(found[name]) == expected
            assert (found[name].num_images, found[name].num_resumed) == (83, num_resumed)
        assert "other weights" in found["other weights"]
        assert "pass that, or use one process" in found["loader"]
    assert len(states(tmp_path / "states")) == 1
    *others, last = (found["nan"] for found in founds)
    assert last.startswith("image 82 with NaN")
    assert all(f"process {count - 1} of {count}, which failed" in other for other in others)


def test_one_process_is_by_itself():
    alone = Processes.current()
    assert (alone.rank, alone.size) == (0, 1)
    assert (alone.gather(3), alone.broadcast(4), alone.first(lambda: 5)) == ([3], 4, 5)
    alone.barrier()
    with pytest.raises(ZeroDivisionError):
        alone.each(lambda: 1 // 0)

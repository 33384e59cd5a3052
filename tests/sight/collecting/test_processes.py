"""Two and three processes against one: the same bits, and failures that all of them hear of."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from convscope.sight.collecting.processes import Processes
from processes import in_processes
from sight.collecting.brute import bits
from sight.collecting.scanning import scanned, together
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


@pytest.mark.parametrize("owner", ["parameters", "buffers"])
def test_processes_talk_through_the_very_device_of_their_model(monkeypatch, owner):
    """NCCL sends through the current device: rank 1's must be its model's, not the first for all ranks."""
    net, entered = nn.Module(), []
    monkeypatch.setattr(net, owner, lambda: iter([SimpleNamespace(device=torch.device("cuda", 1))]))
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or nullcontext())
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "gather_object", lambda value, values, dst: None)
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda values, src: None)
    processes = Processes.of(net)
    assert processes.gather(3) is None
    assert processes.broadcast(3) == 3
    assert entered == [torch.device("cuda", 1)] * 2

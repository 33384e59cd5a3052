"""Where a run takes place: what one process may take."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from convscope.train.telling.place import Place


def test_processes_on_one_machine_share_its_memory_and_the_network_has_its_own_already(monkeypatch):
    monkeypatch.setattr("convscope.train.telling.place.available_memory", lambda: 1000)
    model = nn.Linear(3, 2)  # 32 bytes
    shares = [Place(torch.device("cpu"), 3, n).available_bytes(model) for n in (1, 3)]
    assert shares == [1000 + 32, 333 + 32]


@pytest.mark.parametrize(("device", "sharing"), [("cpu", 4), ("cuda", 1)])
def test_only_processes_on_the_cpu_share(monkeypatch, device, sharing):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    place = Place.of(SimpleNamespace(device=torch.device(device), num_processes=8))
    assert (place.num_processes, place.num_sharing) == (8, sharing)


def test_a_gpu_offers_what_is_free_and_what_pytorch_keeps(monkeypatch):
    figures = {"mem_get_info": (500, 900), "memory_reserved": 300, "memory_allocated": 120}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    with_weights = Place(torch.device("cuda", 0)).available_bytes(nn.Identity())
    assert with_weights == 500 + 300 - 120

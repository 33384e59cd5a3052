"""What a loader says of its batches, beside the batches that it yields."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from checkup.grown import faults, grow, images
from convscope import checkup
from convscope.checkup import CheckupPlan
from convscope.checkup.measuring.loader import loader_facts


def _data(number):
    return TensorDataset(torch.arange(number))


@pytest.mark.parametrize("number", [64, 65, 33, 7])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("drop_last", [True, False])
def test_sizes_are_those_of_the_batches(number, batch_size, drop_last):
    loader = DataLoader(_data(number), batch_size, drop_last=drop_last)
    sizes = [len(batch[0]) for batch in loader]
    facts = loader_facts(loader)
    assert (facts.num_samples, facts.batch_size, facts.drop_last) == (number, batch_size, drop_last)
    assert facts.last_batch == (sizes[-1] if sizes else batch_size)


def test_samplers_that_yield_fewer_than_the_data_has():
    some = WeightedRandomSampler([1.0] * 65, num_samples=17)
    assert loader_facts(DataLoader(_data(65), 8, sampler=some)).last_batch == 1
    share = DistributedSampler(_data(65), num_replicas=2, rank=0)
    loader = DataLoader(_data(65), 8, sampler=share)
    assert loader_facts(loader).last_batch == [len(batch[0]) for batch in loader][-1] == 1


@pytest.mark.parametrize(
    ("settings", "shuffles"),
    [
        ({}, False),
        ({"shuffle": True}, True),
        ({"sampler": SequentialSampler(range(8))}, False),
        ({"sampler": RandomSampler(range(8))}, True),
        ({"sampler": DistributedSampler(_data(8), 1, 0, shuffle=False)}, False),
        ({"sampler": DistributedSampler(_data(8), 1, 0)}, True),
    ],
)
def test_shuffling(settings, shuffles):
    assert loader_facts(DataLoader(_data(8), 4, **settings)).shuffles is shuffles


class _Endless(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(9))


class _Lengthless(torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(9))


class _Bucketed(BatchSampler):
    """Batches of other sizes than it says."""

    def __iter__(self):
        return iter([[0], [1, 2, 3], [4, 5, 6, 7]])


@pytest.mark.parametrize(
    "data",
    [
        None,
        torch.zeros(4, 3),
        [torch.zeros(4, 3)],
        DataLoader(_Endless(), 4),
        DataLoader(_data(9), 4, sampler=_Lengthless()),
        DataLoader(_data(8), batch_size=None),
        DataLoader(_data(8), batch_sampler=_Bucketed(SequentialSampler(range(8)), 4, False)),
    ],
)
def test_other_data_says_nothing(data):
    assert loader_facts(data) is None


def test_a_loader_in_accelerates_hands():
    accelerate = pytest.importorskip("accelerate")
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(_data(65), 32, shuffle=True))
    facts = loader_facts(loader)
    assert (facts.last_batch, facts.shuffles) == (1, True)


def test_one_value_in_a_last_batch_that_wasnt_run():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, bias=False), torch.nn.BatchNorm2d(6), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.BatchNorm1d(6),
    )  # fmt: skip
    grow(net, batches=300, make=lambda: images(32))
    data = TensorDataset(images(97))
    plan = CheckupPlan(max_batches=2)
    found = checkup(net, DataLoader(data, 32), plan=plan)
    assert faults(found) == [("one-value-per-channel", "5#1")]
    assert "97 samples in batches of 32" in found.findings[0].why
    assert "drop_last=True" in found.findings[0].remedy
    assert faults(checkup(net, DataLoader(data, 32, drop_last=True), plan=plan)) == []
    net[5].train(False)
    assert faults(checkup(net, DataLoader(data, 24), plan=plan)) == []  # frozen: takes any batch

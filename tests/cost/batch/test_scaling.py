"""A step at any batch, from its recordings at two: against real recordings at others."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from cases import CASES, ResidualNet
from convscope.core.errors import ConvscopeError
from convscope.cost.batch.scaling import NotAffineError, batch_of, difference, family, with_batch
from convscope.tape import TrainingPlan, record


def _family(model, rest, plan, batches=(5, 7)):
    return family(*(record(model, (batch, *rest), plan) for batch in batches), batches)


@pytest.mark.parametrize("plan", [None, TrainingPlan("adamw")], ids=["inference", "training"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_derived_tape_is_the_recorded_one(case, plan):
    model = case.make()
    found = _family(model, case.shape[1:], plan)
    for batch in (2, 3, 8, 61):
        assert difference(found.at(batch), record(model, (batch, *case.shape[1:]), plan)) == ""


def test_sizes_by_hand():
    net = nn.Linear(6, 4)
    found = _family(net, (6,), TrainingPlan("sgd"))
    sizes = sorted(storage.nbytes for storage in found.at(1000).storages if storage.role == "input")
    assert sizes == [1000 * 6 * 4]
    weights = sorted(storage.nbytes for storage in found.at(1000).storages if storage.role == "parameter")
    assert weights == [4 * 4, 6 * 4 * 4]


class AllPairs(nn.Module):
    def forward(self, x):
        return x @ x.t()


def test_a_matrix_of_all_pairs_has_no_family():
    # N² is no a + b·N: at 4 batches more of 5, 7: 25 and 49; the line through them is 12·N − 35.
    found = _family(AllPairs(), (4,), None)
    assert found.at(7).values[-1].numel == 49
    assert "another size" in difference(found.at(11), record(AllPairs(), (11, 4)))


class Odd(nn.Module):
    def forward(self, x):
        return x.new_empty(x.shape[0] // 3 * 2) * 2


def test_sizes_that_are_no_whole_multiples_have_no_family():
    with pytest.raises(NotAffineError, match="a size is 8 at batch 4 and 16 at batch 7"):
        _family(Odd(), (4,), None, (4, 7))


class LargeBatches(nn.Module):
    def forward(self, x):
        return x.relu() if x.shape[0] < 32 else x.relu().sigmoid()


def test_another_path_for_large_batches_is_noticed():
    found = _family(LargeBatches(), (4,), None)
    assert difference(found.at(31), record(LargeBatches(), (31, 4))) == ""
    assert "operators" in difference(found.at(32), record(LargeBatches(), (32, 4)))


def test_two_networks_arent_one_family():
    one, other = (record(ResidualNet(classes), (4, 3, 17, 13)) for classes in (3, 5))
    assert difference(one, other) == "a tensor made at head.weight has another size"
    with pytest.raises(NotAffineError, match="operators"):
        family(one, record(nn.Linear(3, 2), (4, 3)), (4, 4))


def test_the_batch_axis_of_inputs():
    image = torch.zeros(8, 3, 4, 4, requires_grad=True).to(memory_format=torch.channels_last)
    inputs = {"image": image, "mask": torch.zeros(1, 4), "classes": torch.zeros(8, dtype=torch.int64), "n": 3}
    assert batch_of(inputs) == 8
    found = with_batch(inputs, 1_000_000)
    assert found["image"].shape == (1_000_000, 3, 4, 4)
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    assert found["image"].requires_grad
    assert (found["classes"].shape, found["classes"].dtype) == ((1_000_000,), torch.int64)
    assert found["mask"] is inputs["mask"]
    assert found["n"] == 3
    assert with_batch([(8, 3), (4, 8)], 2) == [(2, 3), (4, 8)]
    assert inputs["image"] is image
    with pytest.raises(ConvscopeError, match="without a batch axis"):
        batch_of(torch.tensor(1.0))


class Sample(NamedTuple):
    image: object
    label: object


def test_named_tuples_stay_named():
    sample = Sample(torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64))
    found = with_batch((sample, {"again": sample}), 2)
    assert isinstance(found[0], Sample)
    assert (found[0].image.shape, found[0].label.shape) == ((2, 3), (2,))
    assert isinstance(found[1]["again"], Sample)
    assert with_batch(Sample((8, 3), (4, 3)), 2) == Sample((2, 3), (4, 3))

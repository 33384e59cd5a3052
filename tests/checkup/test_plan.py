"""The plan of a check-up: what it refuses, and what it limits."""

import pytest

from checkup.grown import Small, grow, loader
from convscope import checkup
from convscope.checkup import CheckupPlan, Progress
from convscope.core.errors import ConvscopeError


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3"])
def test_bad_numbers_of_batches_are_refused(number):
    with pytest.raises(ConvscopeError, match=r"max_batches=.*whole number from 1"):
        CheckupPlan(max_batches=number)


def test_no_more_batches_are_read_than_the_plan_says():
    model = grow(Small(), batches=60)
    read = []

    def reading():
        for batch in loader():
            read.append(1)
            yield batch

    found = checkup(model, reading(), plan=CheckupPlan(max_batches=2))
    assert (found.num_batches, found.num_samples, len(read)) == (2, 32, 2)


def test_progress_counts_batches_up_to_the_limit():
    model, told = grow(Small(), batches=60), []
    checkup(model, loader(), plan=CheckupPlan(progress=told.append))
    assert told == [Progress("running batches", done, 6) for done in range(1, 7)]
    told.clear()
    checkup(model, loader(), plan=CheckupPlan(max_batches=2, progress=told.append))
    assert told == [Progress("running batches", done, 2) for done in (1, 2)]
    told.clear()
    checkup(model, (batch for batch in loader()), plan=CheckupPlan(progress=told.append))
    assert {step.total for step in told} == {None}
